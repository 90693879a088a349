//! Copies and moves within the dataset, file by file.

use alluxio_wire::{FileStatus, UfsUri};
use futures::TryStreamExt;

use super::Transfer;
use crate::error::{ErrorKind, Result};
use crate::write::Target;

impl Transfer {
    /// The steps of `cp`: the source's status, then the one file or all below it.
    pub(super) async fn copy(&self, from: &str, to: &str) -> Result<()> {
        let (source, target) = self.pair(from, to).await?;
        let source_uri = self.client.uri(self.operation, from)?;
        if !source.is_directory() {
            let target = self.client.target(self.operation, to).await?;
            return self.copy_file(&source, &target).await;
        }
        if !self.options.recursive {
            return Err(self.is_a_directory(source_uri.as_str()));
        }
        self.copy_tree(&source_uri, &target).await?;
        // A directory without files would else not be there.
        let made = self.client.ufs().create_dir(&target).await;
        self.client.changed(&target, None).await;
        made.map_err(|error| self.ufs_error(&error))
    }

    /// The steps of `mv`: by one step where the store has it, else copy and then remove.
    pub(super) async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (source, target) = self.pair(from, to).await?;
        let source_uri = self.client.uri(self.operation, from)?;
        if from.is_empty() {
            let context = format!("{source_uri} is the root of the dataset; move what is in it");
            return Err(self.error(ErrorKind::InvalidInput, context));
        }
        if source.is_directory() && !self.options.recursive {
            return Err(self.is_a_directory(source_uri.as_str()));
        }
        let mut old = None;
        if !source.is_directory() {
            old = self.client.target(self.operation, to).await?.old;
        }
        if self.client.ufs().renames_in_one_step() {
            return self
                .rename_at_once(&source, &source_uri, &target, old)
                .await;
        }
        self.copy(from, to).await?;
        let removed = if source.is_directory() {
            self.client.remove_below(&source_uri).await.map(drop)
        } else {
            let removed = self.client.ufs().delete_file(&source_uri).await;
            self.client.changed(&source_uri, Some(&source)).await;
            removed
        };
        removed.map_err(|error| self.ufs_error(&error))
    }

    async fn rename_at_once(
        &self,
        source: &FileStatus,
        from: &UfsUri,
        to: &UfsUri,
        old: Option<FileStatus>,
    ) -> Result<()> {
        self.found(source.length);
        let known = if source.is_directory() {
            self.client.known_below(from).await
        } else {
            vec![source.clone()]
        };
        let renamed = self.client.ufs().rename(from, to, self.mode()).await;
        self.client.changed_below(from, known).await;
        self.client.metadata().forget_below(to);
        self.client.changed(to, old.as_ref()).await;
        renamed.map_err(|error| self.ufs_error(&error))?;
        self.moved(source.length);
        self.file_done();
        Ok(())
    }

    /// Source and target, which must not lie in each other.
    async fn pair(&self, from: &str, to: &str) -> Result<(FileStatus, UfsUri)> {
        let source = self.client.uri(self.operation, from)?;
        let target = self.client.changeable(self.operation, to)?;
        let within = |a: &UfsUri, b: &UfsUri| a.relative_to(b).is_some();
        if within(&target, &source) || within(&source, &target) {
            let context = format!(
                "{source} and {target} are the same, or lie in each other; choose another target"
            );
            return Err(self.error(ErrorKind::InvalidInput, context));
        }
        // Not what is kept: a version that is gone cannot be copied.
        let status = self.client.ufs().status(&source).await;
        Ok((status.map_err(|error| self.ufs_error(&error))?, target))
    }

    async fn copy_tree(&self, source: &UfsUri, target: &UfsUri) -> Result<()> {
        self.client
            .ufs()
            .walk(source)
            .map_err(|error| self.ufs_error(&error))
            .try_for_each_concurrent(self.client.max_parallel_transfers(), |file| async move {
                let below = UfsUri::parse(&file.ufs_uri)
                    .ok()
                    .and_then(|uri| uri.relative_to(source).map(str::to_owned))
                    .filter(|below| !below.is_empty());
                let to = below.and_then(|below| target.join(&below).ok());
                let Some(to) = to else {
                    let context = format!("{} has no name below {target}", file.ufs_uri);
                    return Err(self.error(ErrorKind::InvalidInput, context));
                };
                let to = Target { uri: to, old: None };
                self.copy_file(&file, &to).await
            })
            .await
    }

    async fn copy_file(&self, source: &FileStatus, target: &Target) -> Result<()> {
        self.found(source.length);
        let (length, modified_ms) = (source.length, source.modified_ms);
        if self.is_there(&target.uri, length, modified_ms).await? {
            self.file_skipped(length);
            return Ok(());
        }
        // What passes through this process counts as cached pages do.
        let cache = self.client.cache();
        let mut held = cache.charge();
        let holds = |bytes| cache.reserve(&mut held, bytes);
        let ufs = self.client.ufs();
        let copied = ufs.copy(source, &target.uri, self.mode(), holds).await;
        drop(held);
        self.client.changed(&target.uri, target.old.as_ref()).await;
        copied.map_err(|error| self.ufs_error(&error))?;
        self.moved(length);
        self.file_done();
        Ok(())
    }
}
