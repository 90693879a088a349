//! The program of the image: a static build, and the proof that it is one.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::tools;

const TARGET: &str = "x86_64-unknown-linux-musl";
/// ELF's name for the entry that asks for a dynamic loader.
const PT_INTERP: u32 = 3;
/// Size of an ELF64 program header.
const PROGRAM_HEADER_SIZE: usize = 56;

/// Builds the program and returns where it is.
pub(super) fn build(root: &Path) -> Result<PathBuf> {
    let compiler = tools::find("MUSL_CC", "musl-gcc")
        .context("musl-gcc is missing, and the C parts of the tree need it: install musl-tools")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(root).args([
        "build",
        "--release",
        "--target",
        TARGET,
        "-p",
        "alluxio-cli",
    ]);
    tools::run(
        &mut build,
        &[(
            "CC_x86_64_unknown_linux_musl".as_ref(),
            compiler.as_os_str(),
        )],
    )?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join(TARGET).join("release/alluxio-dataset"))
}

/// Fails for anything but a static x86-64 program: an image from scratch has no loader.
pub(super) fn check_static(program: &[u8]) -> Result<()> {
    // ELF, 64 bits, little endian; machine 62 is x86-64.
    ensure!(
        program.starts_with(b"\x7fELF\x02\x01"),
        "not a 64-bit ELF program"
    );
    ensure!(number::<2>(program, 18)? == 62, "not a program for x86-64");
    let table = usize::try_from(number::<8>(program, 32)?)?;
    let entry_size = usize::try_from(number::<2>(program, 54)?)?;
    let entries = usize::try_from(number::<2>(program, 56)?)?;
    ensure!(
        entry_size >= PROGRAM_HEADER_SIZE,
        "the program's headers are damaged"
    );
    for entry in 0..entries {
        if number::<4>(program, table + entry * entry_size)? == u64::from(PT_INTERP) {
            bail!("the program is linked dynamically; build it for {TARGET}");
        }
    }
    Ok(())
}

/// The little-endian number of `N` bytes at `offset`.
fn number<const N: usize>(program: &[u8], offset: usize) -> Result<u64> {
    let bytes = program
        .get(offset..offset + N)
        .context("the program is cut off")?;
    Ok(bytes
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;

    /// A program with one header of this type.
    fn program(header_type: u32) -> Vec<u8> {
        let mut elf = vec![0_u8; 64 + PROGRAM_HEADER_SIZE];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18] = 62;
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 1;
        elf[64..68].copy_from_slice(&header_type.to_le_bytes());
        elf
    }

    #[test]
    fn a_static_program_passes_and_a_dynamic_one_does_not() {
        check_static(&program(1)).unwrap();
        let message = check_static(&program(PT_INTERP)).unwrap_err().to_string();
        assert!(message.contains("dynamically"), "{message}");
    }

    #[test]
    fn scripts_and_cut_off_programs_are_refused() {
        assert!(check_static(b"#!/bin/sh\n").is_err());
        assert!(check_static(&program(1)[..70]).is_ok());
        assert!(check_static(&program(1)[..66]).is_err());
        assert!(check_static(&program(1)[..20]).is_err());
    }
}
