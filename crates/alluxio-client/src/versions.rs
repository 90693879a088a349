//! Pages of workers that know no versions, served only when the worker's copy is of the right one.
//!
//! The embedded worker is told the version of a file with each request and refuses another one.
//! Alluxio's open-source worker ignores it: after a file was replaced it goes on to serve old pages
//! until the path is loaded anew, and pages of equal length do not show it. What such a worker can
//! tell is its own status of the file. So its `info` is asked once a file, beside the first page,
//! and compared with the status that the file was opened with; where they differ, the worker is
//! passed by.
//!
//! How far this goes: both sides tell length and time (the hash too, where both have one), and a
//! store's times may be whole seconds, so a replacement of the same length within one second is
//! not seen without hashes. And an answer is believed for the metadata's time; a worker that is
//! loaded anew within it is asked again after it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use alluxio_wire::{FileId, FileStatus, FileVersion, PageRange, route, status::parse_list};
use bytes::Bytes;
use moka::future::Cache;

use crate::membership::WorkerEndpoint;
use crate::source::OpenedFile;
use crate::worker::{Answer, PageAnswer, WorkerKind, WorkerKinds, Workers};

/// Files whose comparison is remembered: some 20 MB at 200 bytes each.
const MAX_VERDICTS: u64 = 100_000;

/// Asks workers for pages, and for their copy's version where they know none.
pub struct VersionedPages {
    workers: Arc<Workers>,
    verifies: bool,
    timeout: Duration,
    ttl: Duration,
    kinds: WorkerKinds,
    verdicts: Cache<(Arc<str>, FileId, FileVersion), Verdict>,
}

/// What a worker's own status says of its copy of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// It is of the version that is read.
    Same,
    /// It is of another one.
    Differs,
    /// The worker does not know the file.
    NotThere,
    /// The worker cannot be asked for this name.
    Unaddressable,
}

impl VersionedPages {
    /// Verifies, if at all, within `timeout`, and believes the answer for `ttl`.
    pub fn new(workers: Arc<Workers>, verifies: bool, timeout: Duration, ttl: Duration) -> Self {
        Self {
            workers,
            verifies,
            timeout,
            ttl,
            kinds: WorkerKinds::new(),
            verdicts: Cache::builder()
                .max_capacity(MAX_VERDICTS)
                .time_to_live(ttl)
                .build(),
        }
    }

    /// The workers that are asked.
    pub(crate) fn workers(&self) -> &Workers {
        &self.workers
    }

    /// A page of the version that was opened, as [`Workers::page`] gives it.
    pub async fn page(
        &self,
        worker: &WorkerEndpoint,
        file: &OpenedFile,
        index: u64,
        last_resort: bool,
    ) -> PageAnswer {
        match self.verified(worker, file, index, last_resort).await {
            // Rare, and on the heap, so that the many others are no larger for it.
            PageAnswer::Closed => Box::pin(self.closed(worker)).await,
            answer => answer,
        }
    }

    async fn verified(
        &self,
        worker: &WorkerEndpoint,
        file: &OpenedFile,
        index: u64,
        last_resort: bool,
    ) -> PageAnswer {
        let page = self.workers.page(worker, file, index, last_resort);
        if !self.verifies {
            return page.await;
        }
        match self.kinds.known(&self.workers, worker).await {
            Some(WorkerKind::OpenSource) => self.beside(worker, file, page).await,
            // A worker that cannot give a page need not be asked what it is. One that is known is
            // asked again where it was restarted within the request.
            Some(WorkerKind::Enterprise) | None => match page.await {
                PageAnswer::Page(bytes) => {
                    let kind = self.kinds.learn(&self.workers, worker, self.timeout);
                    match kind.await {
                        Ok(WorkerKind::Enterprise) => PageAnswer::Page(bytes),
                        Ok(WorkerKind::OpenSource) => {
                            let bytes = std::future::ready(PageAnswer::Page(bytes));
                            self.beside(worker, file, bytes).await
                        }
                        Err(cause) => PageAnswer::Broken(cause),
                    }
                }
                answer => answer,
            },
        }
    }

    /// What a close without a byte means. An open-source worker has no other way to say that it does
    /// not hold a page; one that has an answer for everything was ended with the request in its
    /// hands, and the next worker takes over.
    async fn closed(&self, worker: &WorkerEndpoint) -> PageAnswer {
        let kind = self.kinds.learn(&self.workers, worker, self.timeout);
        let answer = match kind.await {
            Ok(WorkerKind::OpenSource) => PageAnswer::Miss,
            Ok(WorkerKind::Enterprise) => PageAnswer::Broken(PageAnswer::Closed.to_string()),
            Err(cause) => PageAnswer::Broken(cause),
        };
        self.workers.meant(worker, &answer);
        answer
    }

    /// A part of a page, from a worker that checks the version itself; `None` where the whole page
    /// is to be asked for.
    pub async fn part(
        &self,
        worker: &WorkerEndpoint,
        file: &OpenedFile,
        index: u64,
        part: PageRange,
    ) -> Option<Bytes> {
        if self.verifies && !self.checks_versions(worker).await {
            return None;
        }
        let bytes = self.workers.part(worker, file, index, part).await;
        // Another process may have taken over meanwhile.
        if self.verifies && !self.checks_versions(worker).await {
            return None;
        }
        bytes
    }

    async fn checks_versions(&self, worker: &WorkerEndpoint) -> bool {
        self.kinds.known(&self.workers, worker).await == Some(WorkerKind::Enterprise)
    }

    /// The page, if the worker's copy is of the right version. Both are asked for at one time, so
    /// that a new file costs no more waiting; whichever says no ends it.
    async fn beside(
        &self,
        worker: &WorkerEndpoint,
        file: &OpenedFile,
        page: impl Future<Output = PageAnswer>,
    ) -> PageAnswer {
        let (mut page, mut verdict) = (pin!(page), pin!(self.verdict(worker, file)));
        if let Some(known) = self.known(worker, file).await {
            return match refusal(Ok(known)) {
                Some(refusal) => refusal,
                None => page.await,
            };
        }
        tokio::select! {
            // The page first: of a worker at rest nothing is asked.
            biased;
            answer = &mut page => match answer {
                PageAnswer::Page(_) => refusal(verdict.await).unwrap_or(answer),
                answer => answer,
            },
            verdict = &mut verdict => match refusal(verdict) {
                Some(refusal) => refusal,
                None => page.await,
            },
        }
    }

    async fn known(&self, worker: &WorkerEndpoint, file: &OpenedFile) -> Option<Verdict> {
        self.verdicts.get(&key(worker, file)).await
    }

    /// What the worker's own status says; one request for all pages that wait for it.
    async fn verdict(&self, worker: &WorkerEndpoint, file: &OpenedFile) -> Result<Verdict, String> {
        let asking = self.ask_for_verdict(worker, file);
        if self.ttl.is_zero() {
            return asking.await;
        }
        let verdict = self.verdicts.try_get_with(key(worker, file), asking).await;
        verdict.map_err(|cause| (*cause).clone())
    }

    async fn ask_for_verdict(
        &self,
        worker: &WorkerEndpoint,
        file: &OpenedFile,
    ) -> Result<Verdict, String> {
        let Some(target) = route::info(&file.uri) else {
            return Ok(Verdict::Unaddressable);
        };
        let body = match self.ask(worker, &target).await? {
            Answer::Body(body) => body,
            Answer::Nothing | Answer::Refused(..) => return Ok(Verdict::NotThere),
            Answer::Failed(cause) => return Err(cause),
        };
        let statuses = parse_list(&body).map_err(|error| error.to_string())?;
        let verdict = match statuses.as_slice() {
            [status] if is_of_version(status, file) => Verdict::Same,
            [_] => Verdict::Differs,
            _ => Verdict::NotThere,
        };
        tracing::debug!(worker = %worker.base_url, uri = %file.uri, ?verdict, "asked for its copy");
        Ok(verdict)
    }

    /// A reader waits for this, so it takes no longer than a page may.
    async fn ask(&self, worker: &WorkerEndpoint, target: &str) -> Result<Answer, String> {
        let asking = self.workers.ask(worker, target);
        let answer = tokio::time::timeout(self.timeout, asking).await;
        answer.map_err(|_elapsed| "did not tell its copy's version in time".to_owned())
    }
}

/// What stands in place of the page, where it may not be served.
fn refusal(verdict: Result<Verdict, String>) -> Option<PageAnswer> {
    match verdict {
        Ok(Verdict::Same) => None,
        Ok(Verdict::Differs) => Some(PageAnswer::Stale),
        Ok(Verdict::NotThere) => Some(PageAnswer::Miss),
        Ok(Verdict::Unaddressable) => Some(PageAnswer::Unaddressable),
        Err(cause) => Some(PageAnswer::Broken(cause)),
    }
}

/// Whether a worker's status may be of the version that was opened.
fn is_of_version(theirs: &FileStatus, file: &OpenedFile) -> bool {
    if theirs.is_directory() || theirs.length != file.length {
        return false;
    }
    let hash = theirs
        .content_hash
        .as_deref()
        .filter(|hash| !hash.is_empty());
    if let (Some(theirs), Some(ours)) = (hash, file.version.content_hash()) {
        return theirs.trim_matches('"') == ours;
    }
    let (theirs, ours) = (theirs.modified_ms, file.modified_ms);
    // Where one side has cut its time to seconds, seconds are all that can be compared.
    if theirs % 1000 == 0 || ours % 1000 == 0 {
        return theirs.div_euclid(1000) == ours.div_euclid(1000);
    }
    theirs == ours
}

fn key(worker: &WorkerEndpoint, file: &OpenedFile) -> (Arc<str>, FileId, FileVersion) {
    (Arc::clone(&worker.base_url), file.id, file.version.clone())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use alluxio_wire::{FileKind, PageSize, UfsUri};

    use super::*;

    fn status(modified_ms: i64, length: u64, hash: Option<&str>) -> FileStatus {
        FileStatus {
            kind: FileKind::File,
            name: "k".to_owned(),
            path: "/k".to_owned(),
            ufs_uri: "s3://b/k".to_owned(),
            modified_ms,
            length,
            content_hash: hash.map(str::to_owned),
        }
    }

    fn opened(status: &FileStatus) -> OpenedFile {
        let uri = UfsUri::parse(&status.ufs_uri).unwrap();
        OpenedFile {
            id: uri.file_id(),
            uri,
            version: status.version(),
            length: status.length,
            modified_ms: status.modified_ms,
            page_size: PageSize::DEFAULT,
        }
    }

    #[test]
    fn a_copy_is_of_the_version_where_length_and_hash_or_time_agree() {
        let ours = opened(&status(5000, 10, Some("e1")));
        assert!(is_of_version(&status(9000, 10, Some("e1")), &ours));
        assert!(is_of_version(&status(9000, 10, Some("\"e1\"")), &ours));
        assert!(!is_of_version(&status(5000, 10, Some("e2")), &ours));
        assert!(!is_of_version(&status(5000, 11, Some("e1")), &ours));
        assert!(is_of_version(&status(5000, 10, None), &ours));
        assert!(!is_of_version(&status(6000, 10, None), &ours));
        assert!(!is_of_version(&status(0, 10, None), &ours));
    }

    #[test]
    fn times_are_compared_as_finely_as_both_tell_them() {
        let by_time =
            |theirs, ours| is_of_version(&status(theirs, 1, None), &opened(&status(ours, 1, None)));
        assert!(by_time(5123, 5123) && !by_time(5123, 5124));
        assert!(by_time(5123, 5000) && by_time(5000, 5999) && !by_time(5999, 6000));
        assert!(by_time(0, 0));
    }
}
