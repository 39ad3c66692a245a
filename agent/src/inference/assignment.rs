//! Which forecasting bundle each machine gets: the one offered in the folder that its file names, or, where that is refused, the one that served it before.
//!
//! Done at the start, before anything is recorded: the hash of the bundle is then part of the machine's configuration, so a change of the one is a change of
//! the other, acts from its place in the log on, and stands in every replay.
use std::collections::BTreeMap;

use hark_protocol::topics::Name;

use super::{Bundle, Bundles, bundle::sha256, stage_b::StageB};
use crate::{
    causes,
    config::{Asset, ForecastModel},
};

/// Bundles that served last, by folder.
pub type Accepted = BTreeMap<Name, Name>;

/// What became of the folders that are named.
#[derive(Debug, Default)]
pub struct Assigned {
    /// The bundles that serve, with their folders.
    pub bundles: Vec<(Name, Bundle)>,
    /// Asset and reason, where what is offered does not serve.
    pub refused: Vec<(Name, String)>,
}

/// Gives each of `assets` the bundle that serves it. `verify` looks at a folder before it is trusted; its error says why not.
pub fn assign(
    assets: &mut BTreeMap<Name, Asset>,
    bundles: &Bundles,
    accepted: &Accepted,
    mut verify: impl FnMut(&std::path::Path) -> Result<f64, String>,
) -> Assigned {
    let mut assigned = Assigned::default();
    let mut offered: BTreeMap<Name, Result<StageB, String>> = BTreeMap::new();
    let mut before: BTreeMap<Name, Option<StageB>> = BTreeMap::new();
    for (id, asset) in assets {
        let Some(model) = &asset.forecast.model else { continue };
        let folder = model.folder.clone();
        let now = offered.entry(folder.clone()).or_insert_with(|| {
            verify(&bundles.folder(&folder))?;
            let bundle = bundles.offered_at(&folder).map_err(|error| causes::chain(&error))?;
            StageB::new(bundle).map_err(|error| causes::chain(&error))
        });
        let refusal = match now {
            Ok(stage_b) => stage_b.refusal(asset),
            Err(reason) => Some(reason.clone()),
        };
        let serves = match (&refusal, now) {
            (None, Ok(stage_b)) => Some(&*stage_b),
            _ => {
                let kept = || accepted.get(&folder).and_then(|hash| StageB::new(bundles.copy(hash)?).ok());
                before.entry(folder.clone()).or_insert_with(kept).as_ref().filter(|stage_b| stage_b.refusal(asset).is_none())
            }
        };
        let bundle = serves.map(|stage_b| stage_b.names.bundle.clone());
        if let Some(stage_b) = serves.filter(|stage_b| assigned.bundles.iter().all(|(_, known)| known.hash() != &*stage_b.names.bundle)) {
            assigned.bundles.push((folder.clone(), stage_b.bundle().clone()));
        }
        assigned.refused.extend(refusal.clone().map(|refusal| (id.clone(), refusal)));
        let told = ForecastModel { bundle, refused: refusal.map(Into::into), ..model.clone() };
        asset.hash = hash_with(&asset.hash, &told);
        asset.forecast.model = Some(told);
    }
    assigned
}

/// The hash of a configuration of which the bundle is a part.
fn hash_with(configured: &Name, model: &ForecastModel) -> Name {
    sha256(format!("{configured}\n{:?}\n{:?}", model.bundle, model.refused).as_bytes()).into()
}
