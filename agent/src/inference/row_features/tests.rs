//! Hand-computed features of short lives.
use super::*;

fn specification(text: &str) -> Specification {
    Specification::parse(text).unwrap()
}

/// One point without regimes, with the features in `kinds`.
fn of_one(more: &str, kinds: &str) -> Specification {
    specification(&format!("{more}\nfeatures = {{ {kinds} }}\npoint = [{{ name = \"a\", unit = \"1\" }}]"))
}

/// The features of the last of `values`.
#[track_caller]
fn check(specification: &Specification, values: &[f64], expected: &[f64]) {
    let mut life = Life::new(specification);
    let mut features = Vec::new();
    for value in values {
        features = life.push(specification, &[Some(*value)], &[]).unwrap();
    }
    assert_eq!(features.len(), specification.names().len());
    let near = features.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-12);
    assert!(near && features.len() == expected.len(), "after {values:?}: {features:?}, expected {expected:?}");
}

#[test]
fn exponentially_weighted_means_begin_as_plain_ones() {
    let specification = of_one("", "value = true, ewma = [0.25]");
    check(&specification, &[8.0], &[8.0, 8.0]);
    check(&specification, &[8.0, 4.0], &[4.0, 6.0]);
    check(&specification, &[8.0, 4.0, 0.0, 8.0], &[8.0, 5.0]);
    // The fifth row weighs a quarter, no more a fifth.
    check(&specification, &[8.0, 4.0, 0.0, 8.0, 1.0], &[1.0, 4.0]);
}

#[test]
fn windows_hold_the_newest_rows_and_before_they_are_full_all() {
    let specification = of_one("", "mean = [2, 4], deviation = [2, 4], slope = [2, 4]");
    check(&specification, &[3.0], &[3.0, 3.0, 0.0, 0.0, 0.0, 0.0]);
    check(&specification, &[3.0, 7.0], &[5.0, 5.0, 2.0, 2.0, 4.0, 4.0]);
    // Of 9, 1, 3, 7 about 5: squares 16, 16, 4, 4; products with -1.5, -0.5, 0.5, 1.5 sum to -2, over 5.
    check(&specification, &[100.0, 9.0, 1.0, 3.0, 7.0], &[5.0, 5.0, 2.0, 10f64.sqrt(), 4.0, -0.4]);
}

#[test]
fn drift_is_counted_from_the_first_rows_of_this_life() {
    let specification = of_one("baseline_rows = 2", "drift = [0.5]");
    check(&specification, &[4.0], &[0.0]);
    check(&specification, &[4.0, 6.0], &[0.0]);
    // The mean is 5, then 7, then 8; the baseline stays 5.
    check(&specification, &[4.0, 6.0, 9.0, 9.0], &[3.0]);
}

#[test]
fn age_counts_every_row() {
    let specification = of_one("age = true", "value = true");
    let mut life = Life::new(&specification);
    life.push(&specification, &[None], &[]).unwrap_err();
    assert_eq!(life.push(&specification, &[Some(2.0)], &[]), Ok(vec![2.0, 2f64.ln_1p()]));
    assert_eq!(life.rows(), 2);
    let mut late = Life::since(&specification, 99);
    assert_eq!(late.push(&specification, &[Some(2.0)], &[]), Ok(vec![2.0, 100f64.ln_1p()]));
}

const TWO_REGIMES: &str = r#"
    features = { value = true, mean = [2] }
    point = [{ name = "a", unit = "1" }, { name = "b", unit = "1" }]
    [regimes]
    settings = [{ name = "speed", unit = "Hz", scale = 10.0 }, { name = "load", unit = "%", scale = 50.0 }]
    distance_max = 1.0
    centre = [
        { at = [20.0, 50.0], mean = [1.0, 10.0], deviation = [1.0, 2.0] },
        { at = [50.0, 50.0], mean = [5.0, 30.0], deviation = [2.0, 4.0] },
    ]
"#;

#[test]
fn values_are_z_scores_of_the_nearest_regime() {
    let specification = specification(TWO_REGIMES);
    let mut life = Life::new(&specification);
    let first = life.push(&specification, &[Some(2.0), Some(12.0)], &[Some(25.0), Some(50.0)]);
    assert_eq!(first, Ok(vec![1.0, 1.0, 1.0, 1.0]));
    let second = life.push(&specification, &[Some(11.0), Some(22.0)], &[Some(50.0), Some(75.0)]);
    assert_eq!(second, Ok(vec![3.0, 2.0, -2.0, -0.5]), "half a scale from the centre");
    let unknown = life.push(&specification, &[Some(1.0), Some(1.0)], &[Some(35.0), Some(50.0)]);
    assert_eq!(unknown, Err(NoFeatures::UnknownRegime));
}

#[test]
fn what_is_missing_is_named_and_leaves_means_and_windows_as_they_were() {
    let specification = specification(TWO_REGIMES);
    let at = [Some(20.0), Some(50.0)];
    let mut life = Life::new(&specification);
    life.push(&specification, &[Some(2.0), Some(12.0)], &at).unwrap();
    let before = life.clone();
    let missing = life.push(&specification, &[None, Some(9.0)], &[Some(f64::NAN), Some(50.0)]);
    assert_eq!(missing, Err(NoFeatures::Missing(vec!["a".to_owned(), "speed".to_owned()])));
    assert_eq!((life.points.clone(), life.complete, life.rows), (before.points, 1, 2));
}

#[test]
fn a_life_goes_on_from_a_checkpoint_to_the_same_numbers() {
    let specification =
        of_one("age = true\nbaseline_rows = 3", "value = true, ewma = [0.3, 0.1], mean = [5], deviation = [5], slope = [7], drift = [0.1]");
    let value = |row: u32| Some(f64::from(row * row * 37 % 101));
    let mut whole = Life::new(&specification);
    for row in 0..20 {
        whole.push(&specification, &[value(row)], &[]).unwrap();
    }
    let mut restored: Life = postcard::from_bytes(&postcard::to_allocvec(&whole).unwrap()).unwrap();
    assert!(restored == whole && restored.fits(&specification));
    for row in 20..40 {
        assert_eq!(restored.push(&specification, &[value(row)], &[]), whole.push(&specification, &[value(row)], &[]));
    }
    assert_eq!(whole.points[0].values.len(), 7, "no more is kept than the longest window needs");
    assert!(!restored.fits(&of_one("", "ewma = [0.3]")));
}
