//! Who leads, as this process knows it: a coordinator, or nobody here.
//!
//! A process is always there and listens; whether it leads changes. [`Seat::hold`] tries to begin a reign, opens a [`Coordinator`] for it, and
//! drops that when the reign is over. A reign that is over has failed nothing: what was going on is taken up by the next one, here or
//! elsewhere.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bombproof_core::reign::{Next, next};
use bombproof_metrics::FarmMetrics;
use bombproof_store::register::{Place, Register, RegisterError};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::counted::{self, Counted};
use super::{Coordinator, Settings};

/// How often one that does not lead looks whether it may, as a part of the lease.
const LOOKS: u64 = 10;

/// What there is to say of a process that does not lead.
const ELSEWHERE: &str = "another coordinator leads this farm";

/// The seat of the one that leads.
pub struct Seat {
    sitting: RwLock<Result<Arc<Coordinator>, String>>,
    leads: watch::Sender<bool>,
}

impl Default for Seat {
    fn default() -> Self {
        Self { sitting: RwLock::new(Err("it has not begun to lead".to_owned())), leads: watch::channel(false).0 }
    }
}

impl Seat {
    /// The coordinator, while this process leads.
    ///
    /// # Errors
    /// Why it does not.
    pub fn coordinator(&self) -> Result<Arc<Coordinator>, String> {
        self.sitting.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether this process leads.
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    /// Brings those figures up to date that are those of this moment.
    pub fn measure(&self, metrics: &FarmMetrics) {
        let now = self.coordinator().ok().map(|coordinator| (coordinator.leader().figures(), coordinator.open()));
        metrics.set(now.as_ref().map(|(figures, open)| (figures, *open)));
    }

    fn set(&self, sitting: Result<Arc<Coordinator>, String>) {
        let leads = sitting.is_ok();
        let before = std::mem::replace(&mut *self.sitting.write().unwrap_or_else(PoisonError::into_inner), sitting);
        if let Ok(before) = before {
            before.step_down();
        }
        self.leads.send_replace(leads);
    }

    /// Stops leading because the process ends, so that another one may begin at once.
    pub async fn leave(&self, within: Duration) {
        let Ok(coordinator) = self.coordinator() else { return };
        self.set(Err("it ends".to_owned()));
        let register = Arc::clone(coordinator.register());
        // Otherwise others begin when the lease has run out.
        let _ = tokio::time::timeout(within, blocking(move || register.end())).await;
    }

    /// Says why this process does not lead; the log says each reason once.
    fn wait(&self, why: &str) {
        if !self.coordinator().is_err_and(|said| said == why) {
            warn!("this coordinator does not lead: {why}");
            self.set(Err(why.to_owned()));
        }
    }

    /// Leads whenever it may, for ever.
    ///
    /// # Errors
    /// What waiting does not help against: the disk, a newer schema.
    pub async fn hold(self: Arc<Self>, place: Place, settings: Settings) -> Result<(), RegisterError> {
        let terms = settings.terms;
        let lease = Duration::from_millis(terms.lease_ms);
        let errors = &settings.metrics.register_errors;
        loop {
            let begin = Instant::now();
            let (opening, errors) = (place.clone(), errors.clone());
            let opened = blocking(move || {
                let register = opening.open().inspect_err(|error| counted::count(&errors, error))?;
                let register: Arc<dyn Register> = Arc::new(Counted { register, errors });
                let epoch = register.begin(lease)?;
                Ok(epoch.map(|epoch| (register, epoch)))
            });
            match opened.await {
                Ok(Some((register, epoch))) => {
                    if let Err(error) = self.reign(&register, epoch, &settings, begin).await {
                        fatal(error).map(|error| self.lost(&error))?;
                    }
                    // Others may begin at once; where that cannot be said they begin when the lease ends.
                    let _ = blocking(move || register.end()).await;
                }
                Ok(None) => self.wait(ELSEWHERE),
                Err(error) => fatal(error).map(|error| self.wait(&error.to_string()))?,
            }
            tokio::time::sleep(Duration::from_millis((terms.lease_ms / LOOKS).max(10))).await;
        }
    }

    fn lost(&self, error: &RegisterError) {
        let deposed = matches!(error, RegisterError::Deposed);
        let why = if deposed { ELSEWHERE.to_owned() } else { error.to_string() };
        error!("the reign is over: {why}");
        self.set(Err(why));
    }

    /// Leads until it does not any more; gives why.
    async fn reign(
        &self,
        register: &Arc<dyn Register>,
        epoch: u64,
        settings: &Settings,
        mut begin: Instant,
    ) -> Result<(), RegisterError> {
        let coordinator = Coordinator::new(settings.clone(), Arc::clone(register), epoch);
        let taken_up = coordinator.take_up().await?;
        self.set(Ok(Arc::clone(&coordinator)));
        let folder = settings.home.root().display();
        info!(epoch, taken_up, "state in '{folder}', reign {epoch}, {taken_up} series to go on with");
        if !settings.contested {
            return std::future::pending().await;
        }
        let (terms, mut tried): (_, Option<Instant>) = (settings.terms, None);
        let mut trouble = None;
        loop {
            match next(&terms, since(begin), tried.map(since)) {
                Next::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                Next::GiveUp => return Err(trouble.unwrap_or(RegisterError::Deposed)),
                Next::Renew(within_ms) => {
                    let (asked, asking) = (Instant::now(), Arc::clone(register));
                    let lease = Duration::from_millis(terms.lease_ms);
                    let renewal = blocking(move || asking.renew(lease));
                    match tokio::time::timeout(Duration::from_millis(within_ms), renewal).await {
                        Ok(Ok(())) => {
                            if trouble.take().is_some() {
                                info!("the register answers again");
                            }
                            (begin, tried) = (asked, None);
                        }
                        Ok(Err(error @ RegisterError::Away { .. })) => {
                            if trouble.is_none() {
                                warn!("{error}: waiting for it");
                            }
                            (trouble, tried) = (Some(error), Some(asked));
                        }
                        Ok(Err(error)) => return Err(error),
                        Err(_late) => tried = Some(asked),
                    }
                }
            }
        }
    }
}

fn since(moment: Instant) -> u64 {
    u64::try_from(moment.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// An error that waiting helps against; otherwise it is given back.
fn fatal(error: RegisterError) -> Result<RegisterError, RegisterError> {
    match error {
        RegisterError::Away { .. } | RegisterError::Deposed | RegisterError::Emptied { .. } => Ok(error),
        RegisterError::Unusable { .. }
        | RegisterError::Newer { .. }
        | RegisterError::Taken { .. }
        | RegisterError::Unknown { .. } => Err(error),
    }
}

/// Asks the register, off the threads that others wait for.
pub(super) async fn blocking<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T, RegisterError> + Send + 'static,
) -> Result<T, RegisterError> {
    let done = tokio::task::spawn_blocking(ask).await;
    done.unwrap_or_else(|error| {
        Err(RegisterError::Unusable { place: "the register".to_owned(), detail: error.to_string() })
    })
}
