//! What to keep when a step failed: objects, events, and every container's log.

use std::fmt::Write as _;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, LogParams};

use crate::objects::{NAMESPACE, RELEASE_NAMESPACE};
use crate::process;
use crate::testbed::Testbed;

/// What is asked of kubectl, and the file it goes to.
const QUESTIONS: &[(&str, &[&str])] = &[
    ("pods.txt", &["get", "pods", "-A", "-o", "wide"]),
    (
        "events.txt",
        &["get", "events", "-A", "--sort-by=.lastTimestamp"],
    ),
    ("describe-pods.txt", &["describe", "pods", "-A"]),
    (
        "volumes.yaml",
        &["get", "pv,pvc,csinodes,csidrivers", "-A", "-o", "yaml"],
    ),
    (
        "datasets.yaml",
        &[
            "get",
            "alluxiodatasets,alluxiodataloads",
            "-A",
            "-o",
            "yaml",
        ],
    ),
];

/// Writes it all into `folder`; what cannot be had is written down as such.
pub(crate) async fn write(testbed: &Testbed, folder: &Path) {
    for (name, arguments) in QUESTIONS {
        let mut kubectl = testbed.cluster.tool("kubectl");
        let answer = process::run(kubectl.args(*arguments)).await;
        save(
            folder,
            name,
            &answer.unwrap_or_else(|error| format!("{error:#}")),
        );
    }
    for namespace in [RELEASE_NAMESPACE, NAMESPACE] {
        write_pod_logs(testbed, namespace, folder).await;
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    save(folder, "mountinfo.txt", &mounts);
    if let Some(logs) = testbed.cluster.component_logs() {
        copy_files(&logs, folder);
    }
}

async fn write_pod_logs(testbed: &Testbed, namespace: &str, folder: &Path) {
    let pods: Api<Pod> = Api::namespaced(testbed.client.clone(), namespace);
    let Ok(list) = pods.list(&ListParams::default()).await else {
        return;
    };
    for pod in list {
        let name = pod.metadata.name.unwrap_or_default();
        let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
        for container in containers {
            let mut text = String::new();
            for previous in [true, false] {
                let parameters = LogParams {
                    container: Some(container.name.clone()),
                    previous,
                    ..LogParams::default()
                };
                match pods.logs(&name, &parameters).await {
                    Ok(log) => text.push_str(&log),
                    // A container that never restarted has no previous log.
                    Err(_) if previous => {}
                    // Writing to a String cannot fail.
                    Err(error) => drop(writeln!(text, "{error}")),
                }
            }
            save(folder, &format!("{name}-{}.log", container.name), &text);
        }
    }
}

fn copy_files(from: &Path, to: &Path) {
    let Ok(entries) = std::fs::read_dir(from) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        // A log that vanished meanwhile is none to keep.
        let _ = std::fs::copy(
            entry.path(),
            to.join(format!("component-{}", name.to_string_lossy())),
        );
    }
}

fn save(folder: &Path, name: &str, text: &str) {
    // The step's own failure has been printed; a full disk must not hide it.
    let _ = std::fs::write(folder.join(name), text);
}
