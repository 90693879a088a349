//! The definitions as the API server gets them, without one; the server's own judgement is in the
//! operator's `tests/apiserver.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use serde_json::Value;

use super::*;
use crate::dataset::{FallbackPolicy, LoadMode};

const MINIMAL: &str = r"
apiVersion: data.alluxio.io/v1alpha1
kind: AlluxioDataset
metadata: {name: imagenet, namespace: vision}
spec:
  ufs: {uri: 's3://ml/imagenet'}
  cluster: {membership: {type: None}}
";

fn schema_of(kind: &str) -> Value {
    let crd = crds()
        .into_iter()
        .find(|c| c.spec.names.kind == kind)
        .unwrap();
    serde_json::to_value(
        &crd.spec.versions[0]
            .schema
            .as_ref()
            .unwrap()
            .open_api_v3_schema,
    )
    .unwrap()
}

fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), visit);
    }
    if schema["items"].is_object() {
        walk(&schema["items"], &format!("{path}[]"), visit);
    }
}

#[test]
fn a_minimal_dataset_gets_every_default() {
    let dataset: AlluxioDataset = serde_yaml::from_str(MINIMAL).unwrap();
    let spec = &dataset.spec;
    assert_eq!(spec.client.page_size.bytes(), Ok(1 << 20));
    assert_eq!(spec.client.virtual_nodes_per_worker, 2000);
    assert_eq!(spec.client.fallback.policy, FallbackPolicy::OnWorkerFailure);
    assert_eq!(spec.cluster.name, "DefaultAlluxioCluster");
    assert_eq!(
        (spec.load.mode, spec.load.paths.as_slice()),
        (LoadMode::None, &["/".into()][..])
    );
    assert_eq!(dataset.qualified_name(), "vision/imagenet");
}

#[test]
fn unknown_fields_are_refused_at_every_level() {
    for (known, unknown) in [
        ("ufs: {uri:", "ufs: {url: x, uri:"),
        ("membership: {type:", "membership: {service: {}, type:"),
        ("spec:\n", "spec:\n  client: {pagesize: 1Mi}\n"),
        ("spec:\n", "spec:\n  load: {schedule: daily}\n"),
    ] {
        let text = MINIMAL.replace(known, unknown);
        assert_ne!(text, MINIMAL);
        let error = serde_yaml::from_str::<AlluxioDataset>(&text)
            .unwrap_err()
            .to_string();
        assert!(error.contains("unknown field"), "{error}");
    }
}

#[test]
fn every_string_and_list_of_a_spec_is_bounded() {
    for kind in ["AlluxioDataset", "AlluxioDataLoad"] {
        walk(
            &schema_of(kind)["properties"]["spec"],
            "spec",
            &mut |path, schema| match schema["type"].as_str() {
                Some("string") => {
                    let bounded = schema["maxLength"].is_number() || schema["enum"].is_array();
                    assert!(bounded, "{kind} {path}");
                }
                Some("array") => assert!(schema["maxItems"].is_number(), "{kind} {path}"),
                _ => {}
            },
        );
    }
}

#[test]
fn every_field_is_described_and_none_is_nullable() {
    for kind in ["AlluxioDataset", "AlluxioDataLoad"] {
        walk(
            &schema_of(kind)["properties"]["spec"],
            "spec",
            &mut |path, schema| {
                assert!(schema["nullable"].is_null(), "{kind} {path} is nullable");
                let described = schema["description"].is_string() || path.ends_with("[]");
                assert!(described, "{kind} {path} has no description");
            },
        );
    }
}

#[test]
fn conditions_merge_by_type() {
    for kind in ["AlluxioDataset", "AlluxioDataLoad"] {
        let conditions = &schema_of(kind)["properties"]["status"]["properties"]["conditions"];
        assert_eq!(conditions["x-kubernetes-list-type"], "map", "{kind}");
        assert_eq!(
            conditions["x-kubernetes-list-map-keys"][0], "type",
            "{kind}"
        );
    }
}

#[test]
fn names_columns_and_status_are_as_documented() {
    let crds = crds();
    let names: Vec<_> = crds
        .iter()
        .map(|c| c.metadata.name.as_deref().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "alluxiodatasets.data.alluxio.io",
            "alluxiodataloads.data.alluxio.io"
        ]
    );
    let columns = |index: usize| -> Vec<String> {
        let columns = crds[index].spec.versions[0]
            .additional_printer_columns
            .as_ref()
            .unwrap();
        columns.iter().map(|c| c.name.clone()).collect()
    };
    assert_eq!(
        columns(0),
        [
            "URI", "Ready", "Loaded %", "Files", "Size", "Workers", "Age"
        ]
    );
    assert_eq!(columns(1), ["State", "Files", "Bytes %", "ETA", "Age"]);
    for (crd, short) in crds.iter().zip(["ads", "adl"]) {
        assert_eq!(
            crd.spec.names.short_names.as_deref(),
            Some(&[short.to_owned()][..])
        );
        assert_eq!(
            crd.spec.names.categories.as_deref(),
            Some(&["alluxio".to_owned()][..])
        );
        let subresources = crd.spec.versions[0].subresources.as_ref().unwrap();
        assert!(subresources.status.is_some());
    }
}

#[test]
fn a_loads_counts_are_the_datasets_only_when_it_loads_all() {
    let load = |yaml: &str| {
        let spec: AlluxioDataLoadSpec = serde_yaml::from_str(yaml).unwrap();
        AlluxioDataLoad::new("x", spec).covers_dataset()
    };
    assert!(load("datasetRef: {name: d}"));
    assert!(!load("{datasetRef: {name: d}, paths: [/train]}"));
    assert!(!load("{datasetRef: {name: d}, fileFilter: '.*jpg'}"));
    assert!(!load("{datasetRef: {name: d}, content: Metadata}"));
}
