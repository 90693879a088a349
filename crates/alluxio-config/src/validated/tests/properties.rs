//! What holds of every configuration file: none panics, what is accepted survives writing, and each
//! mistake is answered with its place.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn any_text_gives_a_config_or_an_error(text in ".{0,200}") {
        let _ = Config::from_yaml(&text);
    }

    #[test]
    fn whatever_is_accepted_survives_writing(config in valid_files()) {
        let config = parse(&config);
        prop_assert_eq!(&parse(&config.to_yaml_with_secrets()), &config);
        // Without its secrets it is the same but for them.
        let public = parse(&config.to_yaml());
        prop_assert_eq!(public.client, config.client);
        prop_assert_eq!(public.worker, config.worker);
    }

    /// A value of another type, out of every range, or for nothing.
    #[test]
    fn a_bad_value_of_any_field_is_refused_with_its_path(
        field in any::<prop::sample::Index>(), bad in prop::sample::select(&BAD_VALUES[..]),
    ) {
        let (whole, fields) = whole_file();
        let field = &fields[field.index(fields.len())];
        let mut file = whole;
        *at(&mut file, field) = serde_yaml::from_str(bad).unwrap();
        refused(&file, field, bad)?;
    }

    #[test]
    fn an_unknown_field_anywhere_is_refused_with_its_path(
        field in any::<prop::sample::Index>(), name in "[a-z]{12}",
    ) {
        let (mut file, fields) = whole_file();
        let field = &fields[field.index(fields.len())];
        let parent = field.rsplit_once('.').map_or("", |(parent, _)| parent);
        let mapping = at(&mut file, parent).as_mapping_mut().unwrap();
        mapping.insert(name.clone().into(), 1.into());
        refused(&file, parent, &name)?;
    }
}

/// None of them is a value of any field: no field is a list of lists, a mapping of mappings, or takes
/// a number below zero.
const BAD_VALUES: [&str; 3] = ["[[1]]", "{x: {y: 1}}", "-1"];

/// A file that says all there is, and the paths of its fields.
fn whole_file() -> (serde_yaml::Value, Vec<String>) {
    let text =
        format!("{FULL}\nworker: {{advertised_host: h, identity: i}}\nlogging: {{path: /tmp/log}}");
    let file = serde_yaml::from_str(&parse(&text).to_yaml_with_secrets()).unwrap();
    let mut fields = Vec::new();
    leaves(&file, "", &mut fields);
    (file, fields)
}

/// The value at a path.
fn at<'a>(file: &'a mut serde_yaml::Value, path: &str) -> &'a mut serde_yaml::Value {
    let names = path.split('.').filter(|name| !name.is_empty());
    names.fold(file, |value, name| value.get_mut(name).unwrap())
}

/// The error names the field, or what it is a part of where only that can be told.
fn refused(file: &serde_yaml::Value, field: &str, bad: &str) -> Result<(), TestCaseError> {
    let text = serde_yaml::to_string(file).unwrap();
    let refused = Config::from_yaml(&text);
    prop_assert!(refused.is_err(), "{field}: {bad} was taken");
    let message = refused.unwrap_err().to_string();
    let untagged = ["cluster.membership", "ufs.options"];
    let named = untagged
        .into_iter()
        .find(|part| field.starts_with(part))
        .unwrap_or(field);
    prop_assert!(message.contains(named), "{field}: {bad}: {message}");
    Ok(())
}

/// Files that are valid, with every number, size and choice of the client at random.
fn valid_files() -> impl Strategy<Value = String> {
    let choices = (
        prop::sample::select(vec![
            "consistent",
            "ketama",
            "jump",
            "maglev",
            "multi_probe",
        ]),
        prop::sample::select(vec![
            "adaptive",
            "sequential",
            "random",
            "parquet",
            "safetensors",
        ]),
        prop::sample::select(vec!["never", "on_worker_failure", "always"]),
        prop::sample::select(vec!["fail", "reopen"]),
        prop::sample::select(vec!["live", "registered"]),
        any::<(bool, bool)>(),
    );
    let numbers = (
        1u32..100_001,
        1u64..1025,
        0u64..604_801,
        0u64..3601,
        1u64..4097,
        1u64..257,
    );
    let bounds = (
        1u64..60_001,
        0u64..3_540_001,
        0u32..101,
        1u32..1001,
        1u32..51,
        0u32..1001,
    );
    (choices, numbers, bounds).prop_map(|(choices, numbers, bounds)| {
        let (policy, profile, fallback, change, ring, (verify, hedge)) = choices;
        let (nodes, units, ttl, negative, inflight, transfers) = numbers;
        let (timeout, more, retries, failures, hedged, window) = bounds;
        let page = (64u64 << 10) * units;
        format!(
            "ufs: {{uri: 's3://bucket/p', key: K, secret: S}}
cluster: {{membership: {{type: static, workers: ['a:1', 'b']}}}}
client:
  page_size: {page}
  memory_limit: {memory}
  virtual_nodes_per_worker: {nodes}
  ring_policy: {policy}
  ring_membership: {ring}
  access_profile: {profile}
  metadata_ttl_seconds: {ttl}
  negative_ttl_seconds: {negative}
  on_change: {change}
  verify_worker_version: {verify}
  max_inflight_requests: {inflight}
  max_parallel_transfers: {transfers}
  max_inflight_bytes: {page}
  deadline_milliseconds: {deadline}
  retry_percent: {retries}
  breaker: {{failures: {failures}}}
  hedge: {{enabled: {hedge}, max_percent: {hedged}}}
  readahead: {{max_window: '{window}Mi'}}
  fallback: {{policy: {fallback}, worker_timeout_milliseconds: {timeout}}}
",
            memory = page * 8,
            deadline = (timeout + more).min(3_600_000),
        )
    })
}
