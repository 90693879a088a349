//! Bad input: refused by the API server where it can know, told as a condition where only the
//! operator can; and the good dataset beside it is not disturbed.

use alluxio_crds::AlluxioDataset;
use alluxio_crds::conditions::{READY, find, is_true};
use anyhow::{Result, bail};
use kube::api::{Api, DeleteParams};
use serde_json::{Value, json};

use crate::objects::{DATASET, NAMESPACE, create, dataset_json, uri};
use crate::report::Report;
use crate::scenario::apply::told;
use crate::testbed::Testbed;
use crate::wait::{Seen, USUAL, until, when};

/// A dataset whose Secret does not exist.
const LOST_SECRET: &str = "lost-secret";
/// The name of that Secret.
const MISSING: &str = "no-such-secret";

/// Refusals, then the condition.
pub(super) async fn run(testbed: &Testbed, report: &mut Report) -> Result<()> {
    for refusal in refusals() {
        let name = format!("{} is refused", refusal.what);
        report.step(&name, refused(testbed, &refusal)).await?;
    }
    let missing = "a missing Secret is told as a condition, and its dataset can be deleted";
    report.step(missing, missing_secret(testbed)).await?;
    report
        .step("the good dataset is still Ready", still_ready(testbed))
        .await
}

/// One way to write a dataset wrongly.
struct Refusal {
    what: &'static str,
    change: fn(&mut Value),
    /// A word that the refusal must have, so that the user finds the field.
    names: &'static str,
}

fn refusals() -> Vec<Refusal> {
    let refusal = |what, change, names| Refusal {
        what,
        change,
        names,
    };
    vec![
        refusal(
            "a URI with credentials",
            |spec| spec["ufs"]["uri"] = json!("s3://AKIA123:hunter2@ml-datasets/x"),
            "credentials",
        ),
        refusal(
            "a page size that is no multiple of 64Ki",
            |spec| spec["client"]["pageSize"] = json!("96Ki"),
            "pageSize",
        ),
        refusal(
            "a virtual node count of 0",
            |spec| spec["client"]["virtualNodesPerWorker"] = json!(0),
            "virtualNodesPerWorker",
        ),
        refusal(
            "an unknown field",
            |spec| spec["client"]["pagesize"] = json!("1Mi"),
            "pagesize",
        ),
    ]
}

async fn refused(testbed: &Testbed, refusal: &Refusal) -> Result<()> {
    let object = changed(testbed, "bad", refusal.change)?;
    let datasets = format!("/apis/data.alluxio.io/v1alpha1/namespaces/{NAMESPACE}/alluxiodatasets");
    // As kubectl does: an unknown field is an error, not a warning.
    let request = http::Request::post(format!("{datasets}?fieldValidation=Strict"))
        .header("Content-Type", "application/json")
        .body(serde_json::to_vec(&object)?)?;
    match testbed.client.request::<Value>(request).await {
        Ok(_) => bail!("it was accepted"),
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
            if !status.message.contains(refusal.names) {
                bail!(
                    "refused without naming {}: {}",
                    refusal.names,
                    status.message
                );
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn changed(testbed: &Testbed, name: &str, change: impl Fn(&mut Value)) -> Result<Value> {
    let (s3, etcd) = (&testbed.store()?.endpoint, &testbed.etcd()?.endpoint);
    let mut object = dataset_json(name, &uri(), s3, etcd);
    change(&mut object["spec"]);
    Ok(object)
}

async fn missing_secret(testbed: &Testbed) -> Result<()> {
    let object = changed(testbed, LOST_SECRET, |spec| {
        spec["ufs"]["credentials"]["secretRef"]["name"] = json!(MISSING);
        spec["load"] = json!({"mode": "None"});
    })?;
    let api: Api<AlluxioDataset> = Api::namespaced(testbed.client.clone(), NAMESPACE);
    create(&api, &serde_json::from_value(object)?).await?;
    until("a condition that names the Secret", USUAL, || async {
        let status = api.get(LOST_SECRET).await?.status.unwrap_or_default();
        let ready = find(&status.conditions, READY);
        let named = ready.is_some_and(|c| c.status == "False" && c.message.contains(MISSING));
        Ok(when(named, || told(&status)))
    })
    .await?;
    api.delete(LOST_SECRET, &DeleteParams::default()).await?;
    until("the deleted dataset gone", USUAL, || async {
        Ok(match api.get_opt(LOST_SECRET).await? {
            None => Seen::There(()),
            Some(_) => Seen::NotYet("it is still there".to_owned()),
        })
    })
    .await
}

async fn still_ready(testbed: &Testbed) -> Result<()> {
    let api: Api<AlluxioDataset> = Api::namespaced(testbed.client.clone(), NAMESPACE);
    let status = api.get(DATASET).await?.status.unwrap_or_default();
    if !is_true(&status.conditions, READY) {
        bail!("{}", told(&status));
    }
    Ok(())
}
