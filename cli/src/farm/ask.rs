//! Questions to a farm that have one answer.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use bombproof_core::access::ProjectId;
use bombproof_core::report::model::Report;
use bombproof_proto::farm::{MAX_JSON_BYTES, from_json, wire};
use tonic::{Status, Streaming};

use super::{Farm, block_on};
use crate::args::{CancelArgs, OneArgs, ReachArgs, ReportArgs, RunArg};
use crate::check::{deliver, timestamp};
use crate::fail::{CLEAN, Fail};

fn state(state: wire::State) -> &'static str {
    match state {
        wire::State::Accepted => "accepted",
        wire::State::Running => "running",
        wire::State::Finished => "finished",
        wire::State::Cancelled => "cancelled",
        wire::State::Refused => "refused",
        wire::State::Failed => "failed",
        wire::State::Unspecified => "unknown",
    }
}

async fn whole(mut stream: Streaming<wire::Chunk>) -> Result<Vec<u8>, Status> {
    let mut text = Vec::new();
    while let Some(chunk) = stream.message().await? {
        if text.len() + chunk.data.len() > MAX_JSON_BYTES {
            return Err(Status::out_of_range("the answer is too large"));
        }
        text.extend_from_slice(&chunk.data);
    }
    Ok(text)
}

impl Farm {
    pub(super) async fn fetch_report(&self, series: &str) -> Result<Report, Fail> {
        let request = wire::ReportRequest { series: series.to_owned() };
        let stream = self.client.clone().report(request).await.map_err(|status| self.failed(&status))?.into_inner();
        let text = whole(stream).await.map_err(|status| self.failed(&status))?;
        from_json("report", &text).map_err(Fail::machine)
    }

    async fn fetch_explanation(&self, series: &str, args: &OneArgs) -> Result<String, Fail> {
        let request =
            wire::ExplainRequest { series: series.to_owned(), patch: args.patch, target: args.target.clone() };
        let stream = self.client.clone().explain(request).await.map_err(|status| self.failed(&status))?.into_inner();
        let text = whole(stream).await.map_err(|status| self.failed(&status))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    async fn all(&self) -> Result<Vec<wire::SeriesInfo>, Fail> {
        let answer = self.client.clone().list(wire::ListRequest {}).await;
        Ok(answer.map_err(|status| self.failed(&status))?.into_inner().series)
    }

    /// The series that is meant: the newest one, where none is named.
    async fn meant(&self, named: Option<&str>) -> Result<String, Fail> {
        if let Some(named) = named {
            return Ok(named.to_owned());
        }
        let newest = self.all().await?.pop();
        newest.map(|info| info.series).ok_or_else(|| Fail::request("this farm has no series yet"))
    }
}

/// Most farms have one project, and do not speak of it.
fn of_project(info: &wire::SeriesInfo) -> String {
    match info.project.as_str() {
        "" => String::new(),
        project if project.parse().is_ok_and(|project: ProjectId| project.is_default()) => String::new(),
        project => format!("  (project {project})"),
    }
}

fn line(info: &wire::SeriesInfo) -> String {
    let targets = info.targets.len();
    format!(
        "{}  {:9}  {:10}  {}/{} states settled on {targets} target{}, {} failing  {}",
        info.series,
        state(info.state()),
        info.owner,
        info.settled,
        info.states,
        if targets == 1 { "" } else { "s" },
        info.failing,
        info.name
    ) + &of_project(info)
}

/// The series of a farm.
pub(crate) fn list(reach: &ReachArgs) -> Result<u8, Fail> {
    block_on(async {
        let farm = Farm::connect(reach).await?;
        let mut out = String::new();
        for info in farm.all().await? {
            let _ = writeln!(out, "{}", line(&info));
        }
        if out.is_empty() {
            out = format!("the farm at {} has no series\n", farm.url);
        }
        crate::print(&out);
        Ok(CLEAN)
    })
}

/// How a farm is, and one of its series.
pub(crate) fn status(args: &RunArg) -> Result<u8, Fail> {
    block_on(async {
        let farm = Farm::connect(&args.reach).await?;
        let request = wire::StatusRequest { series: args.run.clone().unwrap_or_default() };
        let answer = farm.client.clone().status(request).await.map_err(|status| farm.failed(&status))?.into_inner();
        let mut out = String::new();
        if let Some(info) = &answer.series {
            let since = timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(info.submitted_at_s));
            let _ = writeln!(out, "{}", line(info));
            let _ = writeln!(out, "  since {since}; {} jobs wait, {} run", info.queued, info.running);
            if info.estimate_ms > 0 {
                let _ = writeln!(out, "  about {} s for what waits now", info.estimate_ms.div_ceil(1000));
            }
            if !info.detail.is_empty() {
                let _ = writeln!(out, "  {}", info.detail);
            }
        }
        let slots: u64 = answer.workers.iter().filter(|worker| worker.live).map(|worker| u64::from(worker.slots)).sum();
        let _ = writeln!(
            out,
            "farm: {} jobs, {} running on {slots} slots, {} settled since the start",
            answer.jobs, answer.running, answer.settled
        );
        for worker in &answer.workers {
            let _ = writeln!(
                out,
                "  {:24}  {:12}  {}/{} slots used",
                worker.worker, worker.standing, worker.used, worker.slots
            );
        }
        crate::print(&out);
        Ok(CLEAN)
    })
}

/// Stops a series.
pub(crate) fn cancel(args: &CancelArgs) -> Result<u8, Fail> {
    block_on(async {
        let farm = Farm::connect(&args.reach).await?;
        let request = wire::CancelRequest { series: args.series.clone() };
        let answer = farm.client.clone().cancel(request).await.map_err(|status| farm.failed(&status))?.into_inner();
        let said = if answer.cancelled { "cancelled" } else { "was over already" };
        crate::print(&format!("{} {said}\n", args.series));
        Ok(CLEAN)
    })
}

/// The report of a series.
pub(crate) fn report(args: &ReportArgs) -> Result<u8, Fail> {
    block_on(async {
        let farm = Farm::connect(&args.run.reach).await?;
        let series = farm.meant(args.run.run.as_deref()).await?;
        deliver(&farm.fetch_report(&series).await?, args.format, args.output.as_deref())?;
        Ok(CLEAN)
    })
}

/// The evidence for one patch on one target.
pub(crate) fn explain(args: &OneArgs) -> Result<u8, Fail> {
    block_on(async {
        let farm = Farm::connect(&args.reach).await?;
        let series = farm.meant(args.run.as_deref()).await?;
        crate::print(&farm.fetch_explanation(&series, args).await?);
        Ok(CLEAN)
    })
}
