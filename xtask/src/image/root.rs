//! The image's only layer: the files of a container's root.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

/// Where TLS libraries look for root certificates on every distribution that matters.
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";
/// Nobody is the user of pods that name none; a name for it keeps tools that ask from failing.
const PASSWD: &str =
    "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnobody:x:65534:\n";
/// PEM lines have at most 64 characters: 48 bytes.
const PEM_LINE_BYTES: usize = 48;

/// A compressed layer and its two names.
pub(super) struct Layer {
    /// The gzip'd tar.
    pub(super) bytes: Vec<u8>,
    /// SHA-256 of the tar before compression, in hex.
    pub(super) diff_id: String,
}

/// Packs the image's files around `program`.
pub(super) fn layer(program: &[u8]) -> Result<Layer> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, mode) in [
        ("etc/", 0o755),
        ("etc/ssl/", 0o755),
        ("etc/ssl/certs/", 0o755),
        ("tmp/", 0o1777),
    ] {
        append(&mut archive, path, EntryType::Directory, mode, &[])?;
    }
    append(
        &mut archive,
        "etc/passwd",
        EntryType::Regular,
        0o644,
        PASSWD.as_bytes(),
    )?;
    append(
        &mut archive,
        "etc/group",
        EntryType::Regular,
        0o644,
        GROUP.as_bytes(),
    )?;
    append(
        &mut archive,
        CERTIFICATES,
        EntryType::Regular,
        0o644,
        certificates().as_bytes(),
    )?;
    append(
        &mut archive,
        "alluxio-dataset",
        EntryType::Regular,
        0o755,
        program,
    )?;
    let tar = archive.into_inner().context("closing the layer")?;
    let diff_id = hex::encode(Sha256::digest(&tar));
    // Zero as the time of compression, so that the same files give the same bytes.
    let mut gzip = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::best());
    gzip.write_all(&tar)?;
    Ok(Layer {
        bytes: gzip.finish().context("compressing the layer")?,
        diff_id,
    })
}

/// Appends one entry that belongs to root and has no time.
pub(super) fn append(
    archive: &mut tar::Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    bytes: &[u8],
) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    archive
        .append_data(&mut header, path, bytes)
        .with_context(|| format!("packing {path}"))
}

/// Mozilla's root certificates as a PEM bundle: the same on every machine, unlike the builder's own.
fn certificates() -> String {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .map(|certificate| pem(certificate))
        .collect()
}

fn pem(der: &[u8]) -> String {
    let lines: String = der
        .chunks(PEM_LINE_BYTES)
        .map(|chunk| base64(chunk) + "\n")
        .collect();
    format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letters = |group: &[u8]| {
        let bits = group
            .iter()
            .fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        let letter = move |index: usize| {
            if index > group.len() {
                '='
            } else {
                char::from(ALPHABET[bits >> (18 - 6 * index) & 63])
            }
        };
        (0..4).map(letter).collect::<String>()
    };
    bytes.chunks(3).map(letters).collect()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use std::io::Read as _;

    use super::*;

    #[test]
    fn base64_pads_as_the_rfc_says() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn the_layer_holds_the_program_and_what_it_needs() {
        let layer = layer(b"the program").unwrap();
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(&layer.bytes[..])
            .read_to_end(&mut tar)
            .unwrap();
        assert_eq!(hex::encode(Sha256::digest(&tar)), layer.diff_id);
        let mut archive = tar::Archive::new(&tar[..]);
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 0);
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            if path == "alluxio-dataset" {
                let mut program = String::new();
                entry.read_to_string(&mut program).unwrap();
                assert_eq!(program, "the program");
                assert_eq!(entry.header().mode().unwrap(), 0o755);
            }
            seen.push(path);
        }
        assert!(seen.contains(&CERTIFICATES.to_owned()) && seen.contains(&"tmp/".to_owned()));
        assert!(seen.contains(&"alluxio-dataset".to_owned()));
    }
}
