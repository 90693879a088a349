//! What may be left on a node after everything was deleted: nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::objects::DRIVER;

/// FUSE mounts below the kubelet's folder, and sockets of the driver.
pub(crate) fn on_node(kubelet_dir: &str) -> Result<Vec<String>> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    let mut left = fuse_mounts_below(&mounts, kubelet_dir);
    let plugins = Path::new(kubelet_dir).join("plugins").join(DRIVER);
    let folders = [
        plugins.clone(),
        plugins.join("mounter"),
        Path::new(kubelet_dir).join("plugins_registry"),
    ];
    for folder in folders {
        left.extend(sockets_in(&folder)?);
    }
    Ok(left)
}

/// Mount points of a mountinfo text that are FUSE and below this folder.
fn fuse_mounts_below(mountinfo: &str, folder: &str) -> Vec<String> {
    let below = format!("{}/", folder.trim_end_matches('/'));
    let points = mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let point = left.split(' ').nth(4)?;
        let is_fuse = right.starts_with("fuse");
        (is_fuse && point.starts_with(&below)).then(|| format!("mount {point}"))
    });
    points.collect()
}

/// Sockets of the driver in a folder that may be gone.
fn sockets_in(folder: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| folder.display().to_string()),
    };
    let paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    let ours = paths.into_iter().filter(|path| {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let is_socket = name.as_deref().is_some_and(|name| {
            Path::new(name)
                .extension()
                .is_some_and(|extension| extension == "sock")
        });
        is_socket && path.to_string_lossy().contains(DRIVER)
    });
    Ok(ours
        .map(|path| format!("socket {}", path.display()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fuse_mounts_below_the_folder_count() {
        let text = "\
36 35 98:0 / /k/pods/1/mount rw shared:1 - fuse.alluxio alluxio rw
37 35 98:0 / /k/pods/2 rw - tmpfs tmpfs rw
38 35 98:0 / /other rw - fuse x rw
39 35 98:0 / /k2/x rw - fuse x rw
";
        assert_eq!(fuse_mounts_below(text, "/k"), ["mount /k/pods/1/mount"]);
    }
}
