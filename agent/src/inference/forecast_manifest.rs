//! What the manifest of a forecasting bundle says beyond that of every bundle: `[forecast]`.
use std::collections::BTreeMap;

use serde::Deserialize;

/// Table `[forecast]` of a manifest.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForecastManifest {
    /// File of the bundle that specifies the features, see [`super::row_features`].
    pub features: String,
    /// What an asset must tell for the model to be of use.
    pub needs: Vec<Need>,
    /// What the remaining life ends with, such as `functional_failure`.
    pub end_event: String,
    /// What the machine fails by, for people; the training data say it.
    pub failure_mode: Option<String>,
    /// What a life is counted in: one row is one of it.
    pub unit: String,
    /// Rows are so many seconds apart; left out where any distance will do.
    pub row_s: Option<f64>,
    /// Levels of the output `quantiles`, in its order.
    pub levels: Vec<f64>,
    /// Lives that are longer are told as this one: at least.
    pub cap: f64,
    /// The mean is that of lives cut at this; at the cap where left out.
    pub mean_cut: Option<f64>,
    /// Whom the training data are owed to.
    pub credit: String,
    /// What was reached on machines left out of training, by name.
    pub metrics: BTreeMap<String, f64>,
}

/// What an asset may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Since when the machine runs, or was overhauled.
    Age,
}

impl ForecastManifest {
    /// What contradicts itself, in words.
    pub(super) fn fault(&self) -> Option<String> {
        let rising = self.levels.windows(2).all(|pair| pair[0] < pair[1]);
        if self.levels.len() < 2 || !rising || self.levels.iter().any(|level| !(*level > 0.0 && *level < 1.0)) {
            return Some("the levels of [forecast] are not numbers between 0 and 1 that rise".to_owned());
        }
        if self.row_s.is_some_and(|row_s| !(row_s.is_finite() && row_s > 0.0 && row_s < 1e9)) {
            return Some("row_s of [forecast] is not a number of seconds above 0".to_owned());
        }
        if self.mean_cut.is_some_and(|cut| !(cut > 0.0 && cut <= self.cap)) {
            return Some("mean_cut of [forecast] is not a number above 0 and up to the cap".to_owned());
        }
        (!(self.cap.is_finite() && self.cap > 0.0)).then(|| "the cap of [forecast] is not a number above 0".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{
        super::bundle::{Bundle, BundleError},
        *,
    };

    const WHOLE: &str = r#"
        features = "features.toml"
        needs = ["age"]
        end_event = "functional_failure"
        unit = "cycle"
        levels = [0.1, 0.5, 0.9]
        cap = 125.0
        credit = "somebody"
        metrics = { rmse = 11.5 }
    "#;

    #[test]
    fn levels_rise_and_the_cap_is_a_number() {
        let fault = |from: &str, to: &str| toml::from_str::<ForecastManifest>(&WHOLE.replacen(from, to, 1)).unwrap().fault();
        assert_eq!(fault("", ""), None);
        for levels in ["[0.1, 0.1, 0.9]", "[0.5]", "[0.0, 0.5]", "[0.5, 1.0]"] {
            assert!(fault("[0.1, 0.5, 0.9]", levels).unwrap().contains("levels"), "{levels}");
        }
        assert!(fault("125.0", "-1.0").unwrap().contains("cap"));
        assert_eq!(fault("125.0", "125.0\nmean_cut = 125.0"), None);
        for cut in ["0.0", "126.0", "nan"] {
            assert!(fault("125.0", &format!("125.0\nmean_cut = {cut}")).unwrap().contains("mean_cut"), "{cut}");
        }
    }

    /// The shipped bundle `variant` with `edit` made to its manifest.
    fn shipped(variant: &str, edit: (&str, &str)) -> Result<Bundle, BundleError> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/turbofan-rul").join(variant);
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(source).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let manifest = folder.path().join("manifest.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        assert!(text.contains(edit.0), "the bundle changed, this test needs `{}`", edit.0);
        fs::write(manifest, text.replacen(edit.0, edit.1, 1)).unwrap();
        Bundle::open(folder.path())
    }

    #[test]
    fn the_shipped_bundles_reproduce_their_golden_output() {
        for (variant, needs) in [("with-age", &[Need::Age][..]), ("without-age", &[])] {
            let bundle = shipped(variant, ("", "")).unwrap();
            let forecast = bundle.manifest().forecast.as_ref().unwrap();
            assert_eq!((&*forecast.needs, forecast.cap, forecast.mean_cut), (needs, 550.0, Some(125.0)));
            let features = bundle.features().unwrap().names();
            assert_eq!((features.first().map(String::as_str), features.contains(&"age".to_owned())), (Some("T24.ewma_0.3"), !needs.is_empty()));
        }
    }

    #[test]
    fn a_bundle_whose_parts_do_not_go_together_is_refused() {
        for (edit, expected) in [
            (("\"forecast\"", "\"anomaly\""), "role `anomaly`"),
            (("needs = [\"age\"]", "needs = []"), "age is a feature and no need"),
            (("features = \"features.toml\"", "features = \"others.toml\""), "`others.toml` has no hash"),
            (("shape = [\"1\", \"113\"]", "shape = [\"1\", \"112\"]"), "there are 113 features, the model takes 112"),
            (("levels = [0.01", "levels = [0.5"), "levels"),
        ] {
            let refused = shipped("with-age", edit).unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
        }
    }

    #[test]
    fn a_need_that_this_version_does_not_know_is_refused() {
        assert!(toml::from_str::<ForecastManifest>(&WHOLE.replacen("\"age\"", "\"oil_level\"", 1)).is_err());
    }
}
