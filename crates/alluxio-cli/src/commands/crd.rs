//! `crd`: the custom resource definitions, for `kubectl apply -f -`.

use anyhow::Result;

use crate::output;

/// Prints.
pub(crate) fn run() -> Result<()> {
    for crd in alluxio_crds::crds() {
        output::line(format!("---\n{}", serde_yaml::to_string(&crd)?.trim_end()))?;
    }
    Ok(())
}
