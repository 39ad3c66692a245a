//! Remaining life by the bundles that show how a model of PyTorch or of Keras comes to a gateway: float32 graphs, as their exporters write them.
use super::{
    super::{
        assignment::{Accepted, assign},
        stage_b::StageB,
        verification,
    },
    *,
};

/// Rows of the simulated life.
const LIFE: usize = 400;

struct Example {
    folder: &'static str,
    grid_s: u64,
    age_rows: Option<u64>,
    /// Each point with its value when new and when it fails.
    points: [(&'static str, f64, f64); 4],
    cap: f64,
}

const PYTORCH: Example = Example {
    folder: "examples/pytorch",
    grid_s: 3_600,
    age_rows: None,
    points: [("flow", 12.0, 9.0), ("ripple", 0.4, 1.6), ("current", 2.1, 2.9), ("housing", 41.0, 55.0)],
    cap: 200.0,
};
const KERAS: Example = Example {
    folder: "examples/keras",
    grid_s: 1,
    age_rows: Some(0),
    points: [("torque", 180.0, 215.0), ("power", 14.0, 16.5), ("seal", 38.0, 70.0), ("leak", 2.0, 60.0)],
    cap: 120.0,
};

impl Example {
    fn stage_b(&self) -> StageB {
        StageB::new(Bundles::offered_in(&models()).offered_at(self.folder).unwrap()).unwrap()
    }

    /// A machine with what the bundle takes, to which it is assigned once it is verified.
    fn asset(&self) -> config::Asset {
        let mut asset = asset();
        // One point is scored: without any there is no prediction that could tell.
        let point =
            |(id, unit): (&str, &str)| config::Point { id: id.into(), unit: unit.into(), scored: id == self.points[0].0, ..asset.points[0].clone() };
        asset.points = self.stage_b().features().inputs().map(point).collect();
        (asset.grid, asset.stale_after) = (Duration::from_secs(self.grid_s), Duration::from_secs(3 * self.grid_s));
        asset.forecast.model = Some(config::ForecastModel { folder: self.folder.into(), age_rows: self.age_rows, bundle: None, refused: None });
        let mut assets = BTreeMap::from([(asset.id.clone(), asset)]);
        let assigned =
            assign(&mut assets, &Bundles::offered_in(&models()), &Accepted::new(), |folder| verification::look(folder).map(|run| run.as_secs_f64()));
        assert_eq!(assigned.refused, [], "{}", self.folder);
        assets.pop_first().unwrap().1
    }

    /// Readings of a machine that wears until it fails.
    fn life(&self) -> Vec<Entry> {
        let mut noise = Noise(5);
        let row = |n: usize| {
            let (wear, second) = ((n as f64 / LIFE as f64).powi(3), (n as u64 * self.grid_s) as f64);
            self.points.map(|(id, new, worn)| reading(second + 1_000.0, id, Some(new + (worn - new) * (wear + 0.03 * noise.next()))))
        };
        (0..LIFE).flat_map(row).collect()
    }
}

#[test]
fn a_machine_that_wears_is_told_less_and_less() {
    for example in [PYTORCH, KERAS] {
        let asset = example.asset();
        let mut engine = Engine::new(&BTreeMap::from([(asset.id.clone(), asset)]), &models()).unwrap();
        let out = feed(&mut engine, 1, &example.life());
        let told: Vec<&Prediction> = predictions(&out).into_iter().filter(|p| p.forecast.as_deref() == Some("remaining_life")).collect();
        assert!(told.len() > LIFE - 5, "{}: {}", example.folder, told.len());
        let rows = |p: &Prediction| p.remaining_life_s.unwrap() / example.grid_s as f64;
        let (early, late) = (rows(told[LIFE / 4]), rows(told[told.len() - 1]));
        assert!(early > 0.8 * example.cap && late < 0.2 * example.cap, "{}: {early} and {late} rows", example.folder);
        assert!(told.iter().all(|p| p.t_p10_s <= p.t_p50_s && p.t_p50_s <= p.t_p90_s));
    }
}

#[test]
fn features_are_rounded_on_the_way_into_a_float32_graph() {
    for example in [PYTORCH, KERAS] {
        let mut stage_b = example.stage_b();
        let features: Vec<f64> = (0..stage_b.features().names().len()).map(|n| 10.0 + n as f64 / 7.0).collect();
        let rounded: Vec<f64> = features.iter().map(|feature| f64::from(*feature as f32)).collect();
        assert_ne!(features, rounded);
        let said = stage_b.run(&features).unwrap();
        assert_eq!(said, stage_b.run(&rounded).unwrap());
        assert_eq!(said.mean, f64::from(said.mean as f32), "widened on the way out");
    }
}

/// Far from all that was seen in training something bounded is told; an infinity would end in no answer at all.
#[test]
fn a_value_far_away_has_an_answer() {
    for example in [PYTORCH, KERAS] {
        let mut stage_b = example.stage_b();
        for far in [-1e12, 0.0, 1e12] {
            let said = stage_b.run(&vec![far; stage_b.features().names().len()]).unwrap();
            assert!((0.0..=example.cap * 1.000_001).contains(&said.mean), "{}: {said:?}", example.folder);
        }
    }
}
