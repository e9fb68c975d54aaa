//! The pages as Prometheus reads them.

use std::collections::BTreeSet;

use bombproof_core::farm::{self, Fault, Figures, Standing};
use bombproof_core::outcome::Trouble;
use bombproof_core::target::Arch;

use crate::labels::{self, Direction, Kind, Outcome, RegisterError};
use crate::{BlobBytes, FarmMetrics, Page, StoreBytes, WorkerMetrics};

/// Where figures are described for people.
const TABLE: &str = include_str!("../../docs/operations.md");

struct All {
    farm: FarmMetrics,
    worker: WorkerMetrics,
    blobs: BlobBytes,
    page: Page,
}

fn all() -> All {
    let (farm, worker, blobs) = (FarmMetrics::default(), WorkerMetrics::default(), BlobBytes::default());
    let store = StoreBytes::within(7);
    store.set(3);
    let mut page = Page::default();
    farm.show(&mut page);
    worker.show(&mut page);
    blobs.show(&mut page);
    store.show(&mut page);
    All { farm, worker, blobs, page }
}

/// What stands before the value in each line: the name with its labels.
fn lines(page: &Page) -> Vec<(String, String)> {
    let text = page.text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').map(|(what, value)| (what.to_owned(), value.to_owned())).unwrap()).collect()
}

fn value(page: &Page, what: &str) -> String {
    lines(page).into_iter().find(|(it, _)| it == what).unwrap_or_else(|| panic!("no {what}: {}", page.text())).1
}

/// An architecture as nobody calls one, as a worker may say it.
fn arch(name: &str) -> Option<Arch> {
    Some(serde_json::from_value(serde_json::Value::from(name)).unwrap())
}

#[test]
fn no_line_comes_or_goes_whatever_happens() {
    let all = all();
    let before: BTreeSet<String> = lines(&all.page).into_iter().map(|(what, _)| what).collect();
    let mut figures = Figures { epoch: 3, ..Figures::default() };
    for number in 0..100 {
        figures.running.insert((farm::Kind::Step, arch(&format!("evil-{number}\"}} 1\nx{{"))), 1);
    }
    figures.running.insert((farm::Kind::Action, None), 2);
    for name in ["none", "other", ""] {
        figures.running.insert((farm::Kind::Action, arch(name)), 1);
    }
    figures.waiting.insert(farm::Priority::Gate, u64::MAX);
    figures.workers = vec![None, Some(Standing::Good), Some(Standing::Quarantined { for_ms: 1 }), Some(Standing::Good)];
    all.farm.set(Some((&figures, 2)));
    let detail = || "of ann, in /srv/secret".to_owned();
    for fault in [
        Fault::Silent,
        Fault::CutOff,
        Fault::Trouble(Trouble::Disk { detail: detail() }),
        Fault::Trouble(Trouble::Internal { detail: detail() }),
    ] {
        all.farm.fault(&fault);
    }
    all.farm.settled.add(((Kind::Step, arch("evil").as_ref().into()), Outcome::Different), 1);
    all.worker.called(Some(Standing::Replaced));
    all.worker.answered.add((Kind::Action, Outcome::Failed), 1);
    all.worker.took.observe(Kind::Action, 1e9);
    all.blobs.add(Direction::In, u64::MAX);
    all.farm.register_errors.add(RegisterError::Away, 1);
    let after: BTreeSet<String> = lines(&all.page).into_iter().map(|(what, _)| what).collect();
    assert_eq!(before, after);
    for (what, number) in [
        ("bombproof_jobs_running{kind=\"step\",arch=\"other\"}", "100"),
        ("bombproof_jobs_running{kind=\"action\",arch=\"none\"}", "2"),
        ("bombproof_jobs_running{kind=\"action\",arch=\"other\"}", "3"),
        ("bombproof_queue_jobs{priority=\"gate\"}", "9223372036854775807"),
        ("bombproof_workers{state=\"good\"}", "2"),
        ("bombproof_workers{state=\"silent\"}", "1"),
        ("bombproof_leases_taken_back_total{reason=\"silent\"}", "2"),
        ("bombproof_attempts_in_trouble_total{trouble=\"disk\"}", "1"),
        ("bombproof_jobs_settled_total{kind=\"step\",arch=\"other\",outcome=\"different\"}", "1"),
        ("bombproof_worker_state{state=\"draining\"}", "1"),
        ("bombproof_worker_state{state=\"silent\"}", "0"),
        ("bombproof_register_errors_total{error=\"away\"}", "1"),
        ("bombproof_leads", "1"),
        ("bombproof_series_open", "2"),
        ("bombproof_cas_bytes", "3"),
        ("bombproof_cas_limit_bytes", "7"),
    ] {
        assert_eq!(value(&all.page, what), number, "{what}");
    }
    all.farm.set(None);
    assert_eq!(value(&all.page, "bombproof_leads"), "0");
    assert_eq!(value(&all.page, "bombproof_workers{state=\"good\"}"), "0", "what another one leads is not ours");
}

#[test]
fn every_label_is_one_of_the_lists() {
    let mut known: BTreeSet<(&str, String)> = BTreeSet::new();
    macro_rules! know {
        ($($label:ident)*) => {
            $(known.extend(labels::$label::ALL.iter().map(|it| (labels::$label::KEY, it.as_str().to_owned())));)*
        };
    }
    know!(Priority Kind Arch Outcome Taken Trouble State Phase Direction RegisterError Answer);
    for (what, _) in lines(&all().page) {
        let Some((_, labels)) = what.trim_end_matches('}').split_once('{') else { continue };
        for label in labels.split(',') {
            let (key, value) = label.split_once('=').unwrap();
            let value = value.trim_matches('"').to_owned();
            assert!(key == "le" || known.contains(&(key, value)), "{what}");
        }
    }
}

#[test]
fn the_size_of_a_store_is_not_shown_before_it_is_known() {
    let mut page = Page::default();
    let store = StoreBytes::within(1);
    store.show(&mut page);
    assert_eq!(lines(&page).len(), 1, "{}", page.text());
    store.set(0);
    assert_eq!(value(&page, "bombproof_cas_bytes"), "0");
}

#[test]
fn a_page_is_brought_up_to_date_when_it_is_read() {
    let farm = FarmMetrics::default();
    let mut page = Page::default();
    farm.show(&mut page);
    let open = std::sync::atomic::AtomicU64::new(0);
    page.look(move || {
        farm.set(Some((&Figures::default(), open.fetch_add(1, std::sync::atomic::Ordering::Relaxed))));
    });
    assert_eq!(value(&page, "bombproof_series_open"), "0");
    assert_eq!(value(&page, "bombproof_series_open"), "1");
    assert!(page.text().ends_with("# EOF\n"));
}

#[test]
fn what_is_shown_is_described_and_nothing_else() {
    let text = all().page.text();
    let shown: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
        .collect();
    let described = TABLE.split('`').filter(|word| word.starts_with("bombproof_"));
    let described: BTreeSet<String> = described.map(|word| word.split('{').next().unwrap().to_owned()).collect();
    assert_eq!(shown, described);
}
