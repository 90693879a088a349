//! Changes of names: directories, removals, renames. The store does them at once.
//!
//! Where a predecessor died with the request in hand, what is found done is done.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use alluxio_client::ErrorKind;
use alluxio_wire::{FileKind, FileStatus};

use super::change::{checked, local};
use super::{FileSystem, Origin, Reply, join, report};
use crate::errno::Errno;
use crate::inodes::Fingerprint;
use crate::protocol;
use crate::staging::{Draft, Mark, Staging};
use crate::tree::Tree;

impl<T: Tree> FileSystem<T> {
    pub(super) async fn make_directory(
        &self,
        parent: u64,
        name: &[u8],
        origin: Origin,
    ) -> Result<Reply, Errno> {
        let name = checked(name)?;
        let path = join(&self.path(parent)?, name);
        let exists = self.found(&path).await?.is_some() || self.staged_at(parent, name).is_some();
        if exists && origin == Origin::Kernel {
            return Err(libc::EEXIST);
        }
        let made = self.tree.make_directory(&path);
        self.ask("make the directory", &path, made).await?;
        let status = directory(name);
        let attributes = self.attributes(self.intern(parent, name, &status)?, &status);
        Ok(protocol::entry(&attributes, self.ttl).into())
    }

    pub(super) async fn unlink(
        &self,
        staging: &Staging<T::Writer>,
        parent: u64,
        name: &[u8],
        origin: Origin,
    ) -> Result<Reply, Errno> {
        let name = checked(name)?;
        let folder = self.path(parent)?;
        let path = join(&folder, name);
        let mut staged = staging.at(parent, name);
        let is_it = |inode| {
            let place = self.inodes.place(inode);
            place.is_some_and(|(of, known)| of == parent && *known == *name)
        };
        if staged.is_none()
            && let Some(inode) = staging.find_open(is_it)
        {
            // Whoever has it open for writing goes on with a copy.
            staged = self.fetch(staging, inode).await.ok();
        }
        let removed = self.tree.remove_file(&path).await;
        match removed.map_err(|error| report("remove", &path, &error)) {
            // One that the store has never had, or that was removed just before a daemon died.
            Err(libc::ENOENT) if staged.is_some() || origin == Origin::Predecessor => {}
            removed => removed?,
        }
        if let Some(copy) = staged {
            self.forget_copy(staging, &copy).await?;
        }
        self.keep_directory(&folder).await?;
        Ok(Vec::new().into())
    }

    /// Ends a copy whose file is no more; whoever has it open still has it.
    async fn forget_copy(
        &self,
        staging: &Staging<T::Writer>,
        copy: &Draft<T::Writer>,
    ) -> Result<(), Errno> {
        staging.hide(copy.inode());
        let mut turn = copy.turn().await;
        if turn.is_over() {
            // The last one who had it open has just closed it.
            return Ok(());
        }
        let marked = turn.mark(Mark::Unlinked).and_then(|()| {
            if staging.is_open(copy.inode()) {
                Ok(())
            } else {
                staging.release(copy, &mut turn)
            }
        });
        marked.map_err(|error| local(&error))
    }

    /// A directory outlives its last file, also where it was never made.
    async fn keep_directory(&self, path: &str) -> Result<(), Errno> {
        if path.is_empty() || self.found(path).await?.is_some() {
            return Ok(());
        }
        let made = self.tree.make_directory(path);
        self.ask("keep the directory", path, made).await
    }

    pub(super) async fn remove_directory(
        &self,
        staging: &Staging<T::Writer>,
        parent: u64,
        name: &[u8],
    ) -> Result<Reply, Errno> {
        let name = checked(name)?;
        let folder = self.path(parent)?;
        let path = join(&folder, name);
        let inode = self.inodes.find(parent, name, Fingerprint::DIRECTORY);
        if inode.is_some_and(|inode| !staging.below(inode).is_empty()) {
            return Err(libc::ENOTEMPTY);
        }
        let removed = self.tree.remove_directory(&path).await;
        match removed.map_err(|error| report("remove", &path, &error)) {
            // The kernel has seen it: it went with its last file, or before a daemon died.
            Err(libc::ENOENT) => {}
            removed => removed?,
        }
        self.keep_directory(&folder).await?;
        Ok(Vec::new().into())
    }

    pub(super) async fn rename(
        &self,
        staging: &Staging<T::Writer>,
        (parent, name): (u64, &str),
        (new_parent, new_name): (u64, &str),
        flags: u32,
        origin: Origin,
    ) -> Result<Reply, Errno> {
        if flags & !libc::RENAME_NOREPLACE != 0 {
            return Err(libc::EINVAL);
        }
        let (folder, new_folder) = (self.path(parent)?, self.path(new_parent)?);
        let (path, new_path) = (join(&folder, name), join(&new_folder, new_name));
        let replaced = staging.at(new_parent, new_name);
        let is_new = origin == Origin::Kernel;
        if flags & libc::RENAME_NOREPLACE != 0 && is_new {
            let exists = replaced.is_some() || self.found(&new_path).await?.is_some();
            if exists {
                return Err(libc::EEXIST);
            }
        }
        // What was not sent yet is sent first, so that there is one way to give it another name.
        if let Some(copy) = staging.at(parent, name) {
            let mut turn = copy.turn().await;
            self.send(&copy, &mut turn).await?;
        }
        let Some(status) = self.found(&path).await? else {
            let done = if is_new {
                None
            } else {
                self.found(&new_path).await?
            };
            let done = done.ok_or(libc::ENOENT)?;
            // The store did it, and the predecessor died before it could note that.
            if let Some(inode) = self.inodes.latest(parent, name) {
                self.note_rename(staging, inode, (new_parent, new_name), &done)?;
            }
            return Ok(Vec::new().into());
        };
        let inode = match staging.at(parent, name) {
            Some(copy) => copy.inode(),
            None => self.intern(parent, name, &status)?,
        };
        let is_directory = status.is_directory();
        let target = self
            .inodes
            .find(new_parent, new_name, Fingerprint::DIRECTORY);
        if is_directory && target.is_some_and(|inode| !staging.below(inode).is_empty()) {
            return Err(libc::ENOTEMPTY);
        }
        let renamed = self.tree.rename(&path, &new_path, is_directory).await;
        renamed.map_err(|error| match error.kind {
            // What makes `mv` copy and remove.
            ErrorKind::Unsupported => libc::EXDEV,
            _ => report("rename", &path, &error),
        })?;
        if let Some(copy) = replaced.filter(|copy| copy.inode() != inode) {
            self.forget_copy(staging, &copy).await?;
        }
        let status = self.found(&new_path).await?.ok_or(libc::EIO)?;
        self.note_rename(staging, inode, (new_parent, new_name), &status)?;
        self.keep_directory(&folder).await?;
        Ok(Vec::new().into())
    }

    /// The inode goes along with its new name, and the version that it has there.
    fn note_rename(
        &self,
        staging: &Staging<T::Writer>,
        inode: u64,
        (parent, name): (u64, &str),
        status: &FileStatus,
    ) -> Result<(), Errno> {
        let noted = self.inodes.rename(inode, parent, name);
        noted.map_err(|error| local(&error))?;
        staging.rename(inode, parent, name.into());
        self.adopt_version(inode, status)
    }

    /// The status of a path; none where nothing is there.
    pub(super) async fn found(&self, path: &str) -> Result<Option<Arc<FileStatus>>, Errno> {
        match self.ask("look up", path, self.tree.status(path)).await {
            Ok(status) => Ok(Some(status)),
            Err(libc::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

/// The status of a directory that was just made.
fn directory(name: &str) -> FileStatus {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.map_or(0, |since| since.as_millis());
    FileStatus {
        kind: FileKind::Directory,
        name: name.to_owned(),
        path: String::new(),
        ufs_uri: String::new(),
        modified_ms: i64::try_from(now_ms).unwrap_or(i64::MAX),
        length: 0,
        content_hash: None,
    }
}
