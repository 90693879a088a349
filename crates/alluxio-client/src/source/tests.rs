//! The fallback decision, answer by answer.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn failures() -> [(PageAnswer, FallbackReason); 5] {
    [
        (
            PageAnswer::Unreachable("refused".to_owned()),
            FallbackReason::Unreachable,
        ),
        (PageAnswer::TimedOut, FallbackReason::TimedOut),
        (PageAnswer::Overloaded, FallbackReason::Overloaded),
        (PageAnswer::Broken("500".to_owned()), FallbackReason::Broken),
        (PageAnswer::Resting, FallbackReason::Resting),
    ]
}

fn answers_of_a_living_worker() -> [(PageAnswer, FallbackReason); 7] {
    [
        (PageAnswer::Miss, FallbackReason::Miss),
        (PageAnswer::Closed, FallbackReason::Miss),
        (PageAnswer::Stale, FallbackReason::Stale),
        (
            PageAnswer::WrongLength {
                sent: 1,
                expected: 2,
            },
            FallbackReason::PageSize,
        ),
        (PageAnswer::Unaddressable, FallbackReason::Unaddressable),
        (PageAnswer::Refused(400), FallbackReason::Refused),
        (PageAnswer::NoWorkers, FallbackReason::NoWorkers),
    ]
}

#[test]
fn a_page_is_served_under_every_policy() {
    let page = PageAnswer::Page(Bytes::new());
    for policy in [FallbackPolicy::Never, FallbackPolicy::OnWorkerFailure] {
        assert_eq!(next_step(policy, &page, true), Step::Serve);
    }
}

#[test]
fn a_failed_worker_is_followed_by_the_next_and_then_by_the_ufs() {
    for (answer, reason) in failures() {
        let step = |another| next_step(FallbackPolicy::OnWorkerFailure, &answer, another);
        assert_eq!(step(true), Step::NextWorker, "{answer}");
        assert_eq!(step(false), Step::Ufs(reason), "{answer}");
    }
}

#[test]
fn a_living_worker_without_the_page_is_followed_by_the_ufs_at_once() {
    for (answer, reason) in answers_of_a_living_worker() {
        let step = next_step(FallbackPolicy::OnWorkerFailure, &answer, true);
        assert_eq!(step, Step::Ufs(reason), "{answer}");
    }
}

#[test]
fn the_policy_never_leads_to_no_ufs() {
    for (answer, _) in failures() {
        assert_eq!(
            next_step(FallbackPolicy::Never, &answer, true),
            Step::NextWorker
        );
    }
    for (answer, _) in failures().into_iter().chain(answers_of_a_living_worker()) {
        let step = next_step(FallbackPolicy::Never, &answer, false);
        assert!(matches!(step, Step::Fail(_)), "{answer}: {step:?}");
    }
}

#[test]
fn labels_are_distinct_and_in_the_order_of_the_counters() {
    for (index, reason) in FallbackReason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, index);
    }
    for (index, source) in Source::ALL.into_iter().enumerate() {
        assert_eq!(source as usize, index);
    }
    let labels: std::collections::HashSet<_> = FallbackReason::ALL
        .iter()
        .map(|reason| reason.label())
        .collect();
    assert_eq!(labels.len(), FallbackReason::ALL.len());
}

#[test]
fn sources_and_reasons_are_written_by_their_labels() {
    for reason in FallbackReason::ALL {
        assert_eq!(serde_json::to_value(reason).unwrap(), reason.label());
    }
    for source in Source::ALL {
        assert_eq!(serde_json::to_value(source).unwrap(), source.label());
    }
}
