//! The dataset of the quickstart: generated files or a folder of the user's, and their sha256.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use parquet::basic::{Compression, Repetition, Type as PhysicalType};
use parquet::data_type::{DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use sha2::{Digest, Sha256};

/// Images a folder: enough folders for listings to matter, few enough to look at.
const IMAGES_PER_CLASS: u32 = 100;
/// Parquet files of [`PARQUET_ROWS`] rows, 16 bytes each.
const PARQUET_FILES: u32 = 4;
const PARQUET_ROWS: u32 = 250_000;
/// What a JPEG file starts with (SOI, APP0 "JFIF").
const JPEG_START: &[u8] = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01";
/// What a JPEG file ends with (EOI).
const JPEG_END: &[u8] = b"\xff\xd9";

/// A file of the dataset and what its bytes must be.
pub(crate) struct Expected {
    /// Path below the dataset's root.
    pub path: PathBuf,
    /// Length in bytes.
    pub length: u64,
    /// sha256 of its bytes.
    pub sha256: [u8; 32],
}

/// What to generate.
pub(crate) struct Shape {
    /// JPEG-like files, about 100 KB each.
    pub images: u32,
    /// Size of the large file.
    pub large_file_bytes: u64,
}

/// Writes the files below `root`. The same shape always gives the same bytes.
pub(crate) fn generate(root: &Path, shape: &Shape) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(1);
    for image in 0..shape.images {
        let class = root.join(format!("train/class_{:03}", image / IMAGES_PER_CLASS));
        std::fs::create_dir_all(&class)?;
        let mut body = vec![0; random.random_range(60_000..140_000)];
        random.fill_bytes(&mut body);
        let file = class.join(format!("image_{image:06}.jpg"));
        std::fs::write(file, [JPEG_START, &body, JPEG_END].concat())?;
    }
    std::fs::create_dir_all(root.join("tables"))?;
    for table in 0..PARQUET_FILES {
        let file = root.join(format!("tables/part-{table:03}.parquet"));
        parquet(&file, &mut random).with_context(|| format!("cannot write {}", file.display()))?;
    }
    large(
        &root.join("checkpoint.bin"),
        shape.large_file_bytes,
        &mut random,
    )
}

fn parquet(path: &Path, random: &mut SmallRng) -> Result<()> {
    let field = |name, kind| {
        let field = Type::primitive_type_builder(name, kind);
        Ok::<_, anyhow::Error>(Arc::new(
            field.with_repetition(Repetition::REQUIRED).build()?,
        ))
    };
    let fields = vec![
        field("id", PhysicalType::INT64)?,
        field("value", PhysicalType::DOUBLE)?,
    ];
    let schema = Type::group_type_builder("rows")
        .with_fields(fields)
        .build()?;
    let properties = WriterProperties::builder().set_compression(Compression::UNCOMPRESSED);
    let file = File::create(path)?;
    let mut writer =
        SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties.build()))?;
    let ids: Vec<i64> = (0..PARQUET_ROWS).map(|_| random.random()).collect();
    let values: Vec<f64> = (0..PARQUET_ROWS).map(|_| random.random()).collect();
    let mut group = writer.next_row_group()?;
    if let Some(mut column) = group.next_column()? {
        column.typed::<Int64Type>().write_batch(&ids, None, None)?;
        column.close()?;
    }
    if let Some(mut column) = group.next_column()? {
        column
            .typed::<DoubleType>()
            .write_batch(&values, None, None)?;
        column.close()?;
    }
    group.close()?;
    writer.close()?;
    Ok(())
}

fn large(path: &Path, bytes: u64, random: &mut SmallRng) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut block = vec![0; 1024 * 1024];
    let mut left = bytes;
    while left > 0 {
        random.fill_bytes(&mut block);
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        file.write_all(&block[..take])?;
        left -= take as u64;
    }
    Ok(file.flush()?)
}

/// Reads every file below `root` once and notes its sha256, in the order of the paths.
pub(crate) fn survey(root: &Path) -> Result<Vec<Expected>> {
    let mut expected = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = std::fs::read_dir(&directory)
            .with_context(|| format!("cannot list {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path().strip_prefix(root)?.to_owned();
                let (length, sha256) = hash(&entry.path())?;
                expected.push(Expected {
                    path,
                    length,
                    sha256,
                });
            }
        }
    }
    expected.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(expected)
}

fn hash(path: &Path) -> Result<(u64, [u8; 32])> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1024 * 1024];
    let mut length = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((length, hasher.finalize().into()));
        }
        length += count as u64;
        hasher.update(&buffer[..count]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn generated_files_are_what_they_say_and_always_the_same() {
        let shape = Shape {
            images: 3,
            large_file_bytes: 3_000_000,
        };
        let surveys: Vec<_> = (0..2)
            .map(|_| {
                let root = tempfile::tempdir().unwrap();
                generate(root.path(), &shape).unwrap();
                let image = std::fs::read(root.path().join("train/class_000/image_000000.jpg"));
                assert!(image.unwrap().starts_with(JPEG_START));
                let table = File::open(root.path().join("tables/part-000.parquet")).unwrap();
                let table = parquet::file::reader::SerializedFileReader::new(table).unwrap();
                let rows = parquet::file::reader::FileReader::metadata(&table);
                assert_eq!(rows.file_metadata().num_rows(), i64::from(PARQUET_ROWS));
                survey(root.path()).unwrap()
            })
            .collect();
        assert_eq!(surveys[0].len(), 3 + PARQUET_FILES as usize + 1);
        let sums = |survey: &[Expected]| survey.iter().map(|e| e.sha256).collect::<Vec<_>>();
        assert_eq!(sums(&surveys[0]), sums(&surveys[1]));
        let large = surveys[0].iter().find(|e| e.length == 3_000_000);
        assert_eq!(large.unwrap().path, Path::new("checkpoint.bin"));
    }
}
