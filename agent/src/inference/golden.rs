//! Golden vectors of a bundle, a tensor a line: name, dimensions joined by `x`, values.
use super::bundle::BundleError;

/// A tensor of the golden input or output.
#[derive(Debug)]
pub(super) struct GoldenTensor {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f64>,
}

/// Reads the `content` of `file`.
///
/// # Errors
/// [`BundleError::Golden`] with the line that is no tensor.
pub(super) fn parse(bundle: &str, file: &str, content: &[u8]) -> Result<Vec<GoldenTensor>, BundleError> {
    let text = String::from_utf8_lossy(content);
    let parse = |line: &str| -> Result<GoldenTensor, String> {
        let mut words = line.split_ascii_whitespace();
        let name = words.next().ok_or("it is empty")?.to_owned();
        let dimensions = words.next().ok_or("it has no dimensions")?;
        let shape: Result<Vec<usize>, _> = dimensions.split('x').map(str::parse).collect();
        let shape = shape.map_err(|_| format!("`{dimensions}` are no dimensions"))?;
        let values: Result<Vec<f64>, _> = words.map(str::parse).collect();
        let values = values.map_err(|_| "a value is no number")?;
        Ok(GoldenTensor { name, shape, values })
    };
    let numbered = text.lines().enumerate();
    numbered
        .map(|(index, line)| {
            parse(line).map_err(|what| BundleError::Golden { bundle: bundle.to_owned(), file: file.to_owned(), line: index + 1, what })
        })
        .collect()
}
