//! The card of a bundle, from its manifest: what a person should know before a machine is trusted to it.
use std::{fmt::Write, fs, path::Path};

use super::BundleError;
use crate::inference::{ForecastManifest, Manifest, Need, row_features::Specification};

/// What every card says.
const NO_SAFETY: &str = "It is no safety function. What it says of machines of another kind than those it was trained on is worth nothing.";

/// Markdown.
///
/// # Errors
/// [`BundleError`] where the folder has no manifest that can be read.
pub fn of(folder: &Path) -> Result<String, BundleError> {
    let manifest = Manifest::read(folder)?;
    let mut card = format!("# {} {}\n\n{}.\n\n| | |\n|---|---|\n", manifest.name, manifest.version, sentence(&manifest.about));
    let mut row = |title: &str, text: &str| {
        // Writing into a string cannot fail.
        let _ = writeln!(card, "| {title} | {text} |");
    };
    row("role", &manifest.role);
    if let Some(forecast) = &manifest.forecast {
        let specification = fs::read_to_string(folder.join(&forecast.features)).ok().and_then(|text| Specification::parse(&text).ok());
        of_forecast(forecast, specification.as_ref(), &mut row);
    }
    row("trained on", &manifest.training_data);
    row("licence", &manifest.licence);
    row("numbers", &format!("{}, ONNX operator set {}, operators {}", manifest.element, manifest.opset, manifest.operators.join(", ")));
    if let Some(hash) = manifest.files.get("model.onnx") {
        row("SHA-256 of the model", hash);
    }
    if let Some(forecast) = &manifest.forecast {
        card.push_str("\n## What it reached on machines left out of training\n\n| | |\n|---|---|\n");
        for (name, value) in &forecast.metrics {
            let _ = writeln!(card, "| {} | {value} |", name.replace('_', " "));
        }
    }
    let _ = write!(card, "\n## Limits\n\n{NO_SAFETY}\n");
    Ok(card)
}

fn of_forecast(forecast: &ForecastManifest, specification: Option<&Specification>, row: &mut impl FnMut(&str, &str)) {
    let unit = &forecast.unit;
    row("says", &format!("remaining life in {unit}s until `{}`, at most {}, which means at least", forecast.end_event, forecast.cap));
    forecast.mean_cut.into_iter().for_each(|cut| row("its mean", &format!("of lives cut at {cut}: what is beyond it hardly shows in a machine")));
    row("fails by", forecast.failure_mode.as_deref().unwrap_or("not told"));
    let levels: Vec<String> = forecast.levels.iter().map(f64::to_string).collect();
    row("quantiles at", &levels.join(", "));
    let needs: Vec<&str> = forecast
        .needs
        .iter()
        .map(|need| match need {
            Need::Age => "the age: since when the machine runs, or was overhauled",
        })
        .collect();
    row("needs", if needs.is_empty() { "nothing but its points" } else { needs[0] });
    let distance = forecast.row_s.map_or_else(|| "as far apart as the grid".to_owned(), |row_s| format!("{row_s} s apart"));
    row("rows", &format!("one per {unit}, {distance}"));
    if let Some(specification) = specification {
        let inputs: Vec<String> = specification.inputs().map(|(name, unit)| format!("{name} ({unit})")).collect();
        row("takes", &format!("{} features of {}", specification.names().len(), inputs.join(", ")));
    }
    row("credit", &forecast.credit);
}

/// `about` begins a sentence here.
fn sentence(about: &str) -> String {
    let mut letters = about.trim_end_matches('.').chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Write one anew with `hark model show FOLDER > FOLDER/CARD.md`.
    #[test]
    fn the_cards_of_shipped_bundles_are_those_of_their_manifests() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
        for folder in ["stage-a", "turbofan-rul/with-age", "turbofan-rul/without-age", "fan-rul", "examples/pytorch", "examples/keras"] {
            let committed = fs::read_to_string(models.join(folder).join("CARD.md")).unwrap_or_default();
            assert_eq!(of(&models.join(folder)).unwrap(), committed, "{folder}");
        }
    }
}
