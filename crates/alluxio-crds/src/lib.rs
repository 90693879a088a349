//! The custom resources of `data.alluxio.io/v1alpha1` and nothing that talks to a cluster.
//!
//! `AlluxioDataset` is the long-lived object a user writes; `AlluxioDataLoad` is one run of a load.
//! Types, defaults, CEL rules and condition names live here, so that the operator, the CSI plugin,
//! the quickstart and the generated manifests all read one definition.

pub mod conditions;
pub mod dataset;
pub mod load;
pub mod quantity;
mod rules;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

pub use dataset::{AlluxioDataset, AlluxioDatasetSpec, AlluxioDatasetStatus};
pub use load::{AlluxioDataLoad, AlluxioDataLoadSpec, AlluxioDataLoadStatus};
pub use quantity::ByteQuantity;

/// The API group of both kinds.
pub const GROUP: &str = "data.alluxio.io";
/// The only version so far.
pub const VERSION: &str = "v1alpha1";

/// Both definitions, ready to be applied or written into manifests.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        finished(AlluxioDataset::crd()),
        finished(AlluxioDataLoad::crd()),
    ]
}

/// The derive marks every optional field `nullable`, which would keep an explicit `null` in the
/// stored object and make CEL's `has()` true for it. Without the mark the API server drops nulls.
fn finished(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        if let Some(schema) = version
            .schema
            .as_mut()
            .and_then(|s| s.open_api_v3_schema.as_mut())
        {
            drop_nullable(schema);
        }
    }
    crd
}

fn drop_nullable(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    for property in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        drop_nullable(property);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => drop_nullable(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(drop_nullable),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        drop_nullable(values);
    }
}

#[cfg(test)]
mod tests;
