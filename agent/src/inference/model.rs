//! The model runtime: the one file that names tract.
//!
//! A [`Plan`] is a graph with every shape concrete, optimised once: a fixed shape ran 2.4 to 3.5 times faster than a symbolic one.
//! Bytes come in checked (hash first), yet a graph is still a foreign program: its size and operators are limited before it is built, a panic
//! inside the runtime becomes an error, and after any failure the state is made anew, since a failed run poisons it.
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use serde::Deserialize;
use tract_onnx::{
    pb::{ValueInfoProto, tensor_proto::DataType, type_proto::Value},
    prelude::*,
};

/// Most bytes of a model file.
pub(super) const MODEL_BYTES_MAX: usize = 32 << 20;
/// Most nodes, and most initialisers, of a graph: 20 000 nodes took 20 s to optimise.
const NODES_MAX: usize = 2_000;
/// Most values of one output.
const OUTPUT_VALUES_MAX: usize = 1 << 20;
/// Most that is told of what the runtime says.
const REASON_CHARACTERS_MAX: usize = 300;

/// Why the runtime could not build or run a graph.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file is beyond the limits above.
    #[error("the graph is too large: {what} is {actual}, at most {limit} is allowed")]
    TooLarge {
        /// What was measured.
        what: &'static str,
        /// Its value.
        actual: usize,
        /// The limit.
        limit: usize,
    },
    /// An operator that the manifest does not name.
    #[error("the graph uses operator `{0}`, which its manifest does not list")]
    Operator(String),
    /// Inputs or outputs are not those expected.
    #[error("the graph has {kind} {actual:?}, expected {expected:?}")]
    Signature {
        /// `inputs` or `outputs`.
        kind: &'static str,
        /// Names in the graph.
        actual: Vec<String>,
        /// Names in the manifest.
        expected: Vec<String>,
    },
    /// An input or output is of another type than the manifest says.
    #[error("`{tensor}` of the graph is {actual}, its manifest says {expected}")]
    Element {
        /// Name of the input or output.
        tensor: String,
        /// Type in the graph.
        actual: String,
        /// Type in the manifest.
        expected: Element,
    },
    /// A value handed over has another shape than the plan.
    #[error("a tensor of {actual} values was given where the shape needs {expected}")]
    Shape {
        /// Values given.
        actual: usize,
        /// Values needed.
        expected: usize,
    },
    /// The runtime said no; its own words.
    #[error("the model runtime failed: {0}")]
    Runtime(String),
    /// The runtime panicked; its own words.
    #[error("the model runtime panicked: {0}")]
    Panicked(String),
    /// The weights of the asset could not be handed to the runtime.
    #[error("the weights are not ready")]
    NotPrepared,
    /// NaN or infinity came out.
    #[error("output {0} of the model is not finite")]
    NotFinite(usize),
}

/// Type of a graph's inputs and outputs. Outside of the runtime every value is a float64: for a float32 graph it is rounded on the way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Element {
    /// What training frameworks export.
    Float32,
    /// Where the last digits count.
    Float64,
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float32 => "float32",
            Self::Float64 => "float64",
        })
    }
}

/// What a graph must look like to be built.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signature<'a> {
    /// Of all inputs and outputs.
    pub element: Element,
    /// Names and concrete shapes of the inputs, in order.
    pub inputs: &'a [(String, Vec<usize>)],
    /// Names of the outputs, in order.
    pub outputs: &'a [String],
    /// The only operators allowed.
    pub operators: &'a [String],
}

/// A float64 tensor that can be handed to many runs without a copy.
#[derive(Clone, Debug)]
pub(super) struct Input(TValue);

impl Input {
    /// A tensor of `shape` from `values` in row-major order. Fails where the counts differ.
    pub(super) fn new(shape: &[usize], values: &[f64]) -> Result<Self, ModelError> {
        let expected = shape.iter().product();
        if values.len() != expected {
            return Err(ModelError::Shape { actual: values.len(), expected });
        }
        Tensor::from_shape(shape, values).map(|tensor| Self(tensor.into_tvalue())).map_err(runtime)
    }
}

/// An optimised graph with concrete shapes, and the state of its runs. `Send`; not shared between threads.
#[derive(Debug)]
pub(super) struct Plan {
    element: Element,
    plan: Arc<TypedRunnableModel>,
    state: TypedSimpleState,
}

impl Plan {
    /// Builds the graph in `bytes` for the shapes in `signature`. Fails, and never panics, where the file is not what the signature says.
    pub(super) fn build(bytes: &[u8], signature: Signature<'_>) -> Result<Self, ModelError> {
        caught(|| Self::build_unguarded(bytes, signature))
    }

    fn build_unguarded(bytes: &[u8], signature: Signature<'_>) -> Result<Self, ModelError> {
        at_most("file bytes", bytes.len(), MODEL_BYTES_MAX)?;
        // The file's own shapes name a symbol where we set a number; with them kept, the two would not unify.
        let onnx = tract_onnx::onnx().with_ignore_value_info(true);
        let proto = onnx.proto_model_for_read(&mut &*bytes).map_err(runtime)?;
        let graph = proto.graph.as_ref().ok_or_else(|| ModelError::Runtime("the file holds no graph".to_owned()))?;
        at_most("number of nodes", graph.node.len(), NODES_MAX)?;
        at_most("number of initialisers", graph.initializer.len(), NODES_MAX)?;
        if let Some(node) = graph.node.iter().find(|node| !signature.operators.contains(&node.op_type)) {
            return Err(ModelError::Operator(node.op_type.clone()));
        }
        same_names("inputs", graph.input.iter().map(|i| &i.name), signature.inputs.iter().map(|(name, _)| name))?;
        same_names("outputs", graph.output.iter().map(|o| &o.name), signature.outputs.iter())?;
        same_element(graph.input.iter().chain(&graph.output), signature.element)?;

        let mut model = onnx.model_for_proto_model(&proto).map_err(runtime)?;
        for (slot, (_, shape)) in signature.inputs.iter().enumerate() {
            model.set_input_fact(slot, signature.element.datum_type().fact(shape).into()).map_err(runtime)?;
        }
        for slot in 0..signature.outputs.len() {
            model.set_output_fact(slot, InferenceFact::default()).map_err(runtime)?;
        }
        let plan = model.into_optimized().and_then(|m| m.into_runnable()).map_err(runtime)?;
        for slot in 0..signature.outputs.len() {
            let fact = plan.model().output_fact(slot).map_err(runtime)?;
            let values = fact.shape.as_concrete().map_or(usize::MAX, |shape| shape.iter().product());
            at_most("number of output values", values, OUTPUT_VALUES_MAX)?;
        }
        let state = plan.spawn().map_err(runtime)?;
        Ok(Self { element: signature.element, plan, state })
    }

    /// Runs the graph once. The outputs come in the order of the signature, flattened, all finite; else an error, after which the plan may be used again.
    pub(super) fn run(&mut self, inputs: &[&Input]) -> Result<Vec<Vec<f64>>, ModelError> {
        let values: TVec<TValue> = inputs.iter().map(|input| self.element.tensor(input)).collect::<Result<_, _>>()?;
        let (state, element) = (&mut self.state, self.element);
        let result = caught(|| collect(&state.run(values).map_err(runtime)?, element));
        if result.is_err() {
            self.state = self.plan.spawn().map_err(runtime)?;
        }
        result
    }
}

impl Element {
    fn datum_type(self) -> DatumType {
        match self {
            Self::Float32 => DatumType::F32,
            Self::Float64 => DatumType::F64,
        }
    }

    fn tensor(self, input: &Input) -> Result<TValue, ModelError> {
        match self {
            Self::Float64 => Ok(input.0.clone()),
            Self::Float32 => input.0.cast_to::<f32>().map(|rounded| rounded.into_owned().into_tvalue()).map_err(runtime),
        }
    }

    fn values(self, output: &TValue) -> Result<Vec<f64>, TractError> {
        Ok(match self {
            Self::Float64 => output.to_plain_array_view::<f64>()?.iter().copied().collect(),
            Self::Float32 => output.to_plain_array_view::<f32>()?.iter().copied().map(f64::from).collect(),
        })
    }
}

fn collect(outputs: &[TValue], element: Element) -> Result<Vec<Vec<f64>>, ModelError> {
    let mut flat = Vec::with_capacity(outputs.len());
    for (number, output) in outputs.iter().enumerate() {
        let values = element.values(output).map_err(runtime)?;
        if values.iter().any(|value| !value.is_finite()) {
            return Err(ModelError::NotFinite(number));
        }
        flat.push(values);
    }
    Ok(flat)
}

/// Runs `work` and turns a panic inside it into an error. What it borrows is dropped or rebuilt by the caller, so no broken value is seen later.
fn caught<T>(work: impl FnOnce() -> Result<T, ModelError>) -> Result<T, ModelError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned().or_else(|| payload.downcast_ref::<&str>().map(|&s| s.to_owned()));
        Err(ModelError::Panicked(text.unwrap_or_else(|| "without a message".to_owned())))
    })
}

/// What the runtime says up to where it prints the whole graph.
fn runtime(error: TractError) -> ModelError {
    let text = format!("{error:#}");
    ModelError::Runtime(text.lines().next().unwrap_or_default().chars().take(REASON_CHARACTERS_MAX).collect())
}

fn at_most(what: &'static str, actual: usize, limit: usize) -> Result<(), ModelError> {
    if actual > limit { Err(ModelError::TooLarge { what, actual, limit }) } else { Ok(()) }
}

fn same_names<'a>(
    kind: &'static str,
    actual: impl Iterator<Item = &'a String>,
    expected: impl Iterator<Item = &'a String>,
) -> Result<(), ModelError> {
    let (actual, expected): (Vec<_>, Vec<_>) = (actual.cloned().collect(), expected.cloned().collect());
    if actual == expected { Ok(()) } else { Err(ModelError::Signature { kind, actual, expected }) }
}

fn same_element<'a>(mut tensors: impl Iterator<Item = &'a ValueInfoProto>, expected: Element) -> Result<(), ModelError> {
    let wanted = match expected {
        Element::Float32 => DataType::Float,
        Element::Float64 => DataType::Double,
    };
    let declared = |tensor: &ValueInfoProto| match tensor.r#type.as_ref().and_then(|of| of.value.as_ref()) {
        Some(Value::TensorType(tensor)) => DataType::try_from(tensor.elem_type).unwrap_or(DataType::Undefined),
        None => DataType::Undefined,
    };
    match tensors.find(|tensor| declared(tensor) != wanted) {
        None => Ok(()),
        Some(tensor) => Err(ModelError::Element { tensor: tensor.name.clone(), actual: format!("{:?}", declared(tensor)).to_lowercase(), expected }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_words() {
        let word = "stride";
        let formatted = caught::<()>(|| panic!("division by zero {word}"));
        assert!(matches!(formatted, Err(ModelError::Panicked(ref text)) if text == "division by zero stride"), "{formatted:?}");
        let plain = caught::<()>(|| panic!("overflow"));
        assert!(matches!(plain, Err(ModelError::Panicked(ref text)) if text == "overflow"), "{plain:?}");
    }

    /// It may print the whole graph after its reason.
    #[test]
    fn what_the_runtime_says_is_a_line() {
        let said = runtime(TractError::msg(format!("no such {}\nGraph {{ … }}", "axis ".repeat(100)))).to_string();
        assert!(said.starts_with("the model runtime failed: no such axis") && !said.contains("Graph") && said.len() < 400, "{said}");
    }

    #[test]
    fn what_is_no_graph_or_another_one_is_refused() {
        let signature = Signature { element: Element::Float64, inputs: &[], outputs: &[], operators: &[] };
        assert!(Plan::build(b"\xff\xff\xff", signature).is_err());
        assert!(matches!(Plan::build(b"", signature), Err(ModelError::Runtime(_))));
        assert!(matches!(Plan::build(&vec![0; MODEL_BYTES_MAX + 1], signature), Err(ModelError::TooLarge { .. })));
        let shipped = include_bytes!("../../../models/stage-a/model.onnx");
        let operators: Vec<String> = ["Add", "MatMul", "Max", "Mul", "Reshape", "Slice", "Sqrt", "Sub"].map(str::to_owned).to_vec();
        let refused = Plan::build(shipped, Signature { operators: &operators, ..signature });
        assert!(matches!(refused, Err(ModelError::Signature { kind: "inputs", .. })), "{refused:?}");
    }
}
