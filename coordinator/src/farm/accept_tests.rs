//! Series are taken in, while the register is there and while it is not.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

use bombproof_core::quota::Quota;
use bombproof_store::register::{FileRegister, Register};

use super::super::ground::{Ground, idle_worker};
use super::*;

/// A register that takes nothing in from one user as long as it is away.
struct Away {
    register: FileRegister,
    for_whom: &'static str,
    away: AtomicBool,
    asked: AtomicU32,
}

impl Register for Away {
    fn accept(&self, entry: &Entry, submission: &[u8]) -> Result<(), RegisterError> {
        if entry.owner.as_str() == self.for_whom && self.away.load(Relaxed) {
            self.asked.fetch_add(1, Relaxed);
            return Err(RegisterError::Away { place: "here".to_owned(), detail: "a test".to_owned() });
        }
        self.register.accept(entry, submission)
    }

    fn change(&self, id: &SeriesId, change: &mut dyn FnMut(&mut Entry)) -> Result<Entry, RegisterError> {
        self.register.change(id, change)
    }

    fn entry(&self, id: &SeriesId) -> Result<Option<Entry>, RegisterError> {
        self.register.entry(id)
    }

    fn list(&self) -> Result<Vec<Entry>, RegisterError> {
        self.register.list()
    }

    fn submission(&self, id: &SeriesId) -> Result<Option<Vec<u8>>, RegisterError> {
        self.register.submission(id)
    }

    fn begin(&self, lease: Duration) -> Result<Option<u64>, RegisterError> {
        self.register.begin(lease)
    }

    fn renew(&self, lease: Duration) -> Result<(), RegisterError> {
        self.register.renew(lease)
    }

    fn end(&self) -> Result<(), RegisterError> {
        self.register.end()
    }
}

fn packed(submission: &Submission) -> Vec<u8> {
    bombproof_proto::farm::deflated("submission", submission).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_the_register_holds_up_nobody_else_and_is_counted_once() {
    let ground = Ground::new();
    let register = Arc::new(Away {
        register: ground.register(),
        for_whom: "ann",
        away: AtomicBool::new(true),
        asked: AtomicU32::new(0),
    });
    let mut settings = ground.settings();
    settings.quota = Quota { open: 1, a_day: 0 };
    let coordinator = Coordinator::new(settings, Arc::clone(&register) as Arc<dyn Register>, 1);
    let submission = ground.submission();
    let hand_in = |owner: &str| {
        let (coordinator, submission, owner) = (Arc::clone(&coordinator), submission.clone(), owner.into());
        let bytes = packed(&submission);
        tokio::spawn(async move { coordinator.submit(submission, bytes, owner, ProjectId::default()).await })
    };
    let (first, second) = (hand_in("ann"), hand_in("ann"));
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, async {
        while register.asked.load(Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    let bobs = tokio::time::timeout(limit, hand_in("bob")).await.expect("bob waits for ann").unwrap().unwrap();
    assert!(!first.is_finished() && !second.is_finished());
    assert_eq!(register.list().unwrap().len(), 1, "nothing of ann's is kept yet");
    register.away.store(false, Relaxed);
    let both = [first.await.unwrap(), second.await.unwrap()];
    let refused = both.iter().filter(|it| matches!(it, Err(SubmitError::Enough(_)))).count();
    assert_eq!((refused, both.iter().filter(|it| it.is_ok()).count()), (1, 1), "{both:?}");
    let entries = register.list().unwrap();
    let owners: Vec<(&str, bool)> = entries.iter().map(|it| (it.owner.as_str(), it.id == bobs)).collect();
    assert_eq!(owners.len(), 2, "{owners:?}");
    assert!(owners.contains(&("bob", true)) && owners.contains(&("ann", false)), "{owners:?}");
    drop(coordinator.counting.of(&"carl".into()).await);
    let left = coordinator.counting.0.lock().unwrap().keys().map(UserId::to_string).collect::<Vec<_>>();
    assert_eq!(left, ["carl"], "who is through is forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_of_a_caller_that_is_gone_is_kept_and_begun() {
    let ground = Ground::new();
    let register = Arc::new(Away {
        register: ground.register(),
        for_whom: "ann",
        away: AtomicBool::new(true),
        asked: AtomicU32::new(0),
    });
    let coordinator = Coordinator::new(ground.settings(), Arc::clone(&register) as Arc<dyn Register>, 1);
    let submission = ground.submission();
    let bytes = packed(&submission);
    let call = coordinator.submit(submission, bytes, "ann".into(), ProjectId::default());
    assert!(tokio::time::timeout(Duration::from_secs(1), call).await.is_err(), "the register is away");
    register.away.store(false, Relaxed);
    tokio::time::timeout(Duration::from_secs(60), async {
        while register.list().unwrap().first().is_none_or(|entry| coordinator.live(&entry.id).is_none()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it is not begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_is_queued_under_its_owner_and_not_under_the_name_that_the_client_sends() {
    let ground = Ground::new();
    let coordinator = Coordinator::new(ground.settings(), Arc::new(ground.register()), 1);
    let worker = Arc::clone(&coordinator);
    tokio::spawn(async move { worker.leader().synchronize(idle_worker(), HashMap::new()).await });
    let submission = Submission { user: "mallory".into(), ..ground.submission() };
    let bytes = packed(&submission);
    let id = coordinator.submit(submission, bytes, "ann".into(), ProjectId::default()).await.unwrap();
    let view = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            if let Some(view) = coordinator.leader().series(&id) {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert_eq!(view.await.expect("it is not queued").user.as_str(), "ann");
    assert_eq!(coordinator.register().entry(&id).unwrap().unwrap().owner.as_str(), "ann");
}
