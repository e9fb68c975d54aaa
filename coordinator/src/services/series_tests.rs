//! Series of several projects on one farm: what each caller is told.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use bombproof_core::access::{Known, Proof, Role};
use bombproof_core::digest::BlobDigest;
use bombproof_core::submission::Patches;
use bombproof_proto::farm::{CHUNK_BYTES, MESSAGE_BYTES, deflated};
use bombproof_store::register::Place;
use bombproof_store::remote::{Channel, Connection, RemoteBlobs, RemoteError};
use tokio::net::TcpListener;
use tonic::Code;
use tonic::service::Routes;
use wire::series_client::SeriesClient;

use super::super::auth::Auth;
use super::super::server::{Security, serve};
use super::super::{BlobPlane, add_farm, while_leading};
use super::*;
use crate::farm::ground::Ground;
use crate::states::Missing;
use crate::states::depot_tests::{git, hollow, packed};

/// Who calls: a name, a role, and projects.
const CALLERS: [(&str, Role, &[&str]); 8] = [
    ("ann", Role::Submit, &["one"]),
    ("al", Role::Submit, &["one"]),
    ("amy", Role::Read, &["one"]),
    ("bob", Role::Submit, &["two"]),
    ("ben", Role::Read, &["two"]),
    ("carl", Role::Submit, &[]),
    ("dora", Role::Submit, &["one", "two"]),
    ("root", Role::Admin, &[]),
];

/// A farm of this process, whose callers show their names as tokens.
struct Served {
    ground: Ground,
    seat: Arc<Seat>,
    address: SocketAddr,
}

fn access(callers: &[(&str, Role, &[&str])]) -> String {
    let lines = callers.iter().map(|(name, role, projects)| {
        let mut known = Known::new(name, &[*role]);
        if !projects.is_empty() {
            known.projects = projects.iter().map(|name| name.parse().unwrap()).collect();
        }
        Proof::of_token(name).line(&known)
    });
    lines.collect()
}

impl Served {
    async fn start() -> Self {
        let ground = Ground::new();
        let settings = ground.settings();
        let seat = Arc::new(Seat::default());
        let access_file = ground.at("access");
        let worker = Proof::of_token("w").line(&Known::new("w", &[Role::Worker]));
        std::fs::write(&access_file, access(&CALLERS) + &worker).unwrap();
        let kept = settings.kept.clone();
        let plane = BlobPlane::new(kept.cas, kept.actions, ground.at("uploads")).unwrap();
        let explain: Explain = Arc::new(|_, run, _, _| Ok(format!("the evidence of {run}")));
        let routes = add_farm(while_leading(plane.add_to(Routes::default()), &seat), &seat, explain);
        let place = Place::File(ground.at("home/register.redb"));
        tokio::spawn(Arc::clone(&seat).hold(place, settings));
        seat.leads().wait_for(|leads| *leads).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let security = Security { auth: Auth::listed(&access_file).unwrap(), ..Security::loopback() };
        tokio::spawn(serve(listener, security, routes, std::future::pending()));
        Self { ground, seat, address }
    }

    fn connection(&self, who: &str) -> Connection {
        Connection::to(&format!("http://{}", self.address)).token(Some(who.to_owned()))
    }

    fn client(&self, who: &str) -> SeriesClient<Channel> {
        SeriesClient::new(self.connection(who).channel().unwrap()).max_decoding_message_size(MESSAGE_BYTES)
    }

    /// Hands in a submission, with a pack if there is one.
    async fn submit(&self, who: &str, submission: &Submission, pack: Option<&PathBuf>) -> Result<String, Status> {
        use wire::submit_request::Part;
        let mut parts = vec![Part::Submission(deflated("submission", submission).unwrap())];
        if let Some(pack) = pack {
            let bytes = std::fs::read(pack).unwrap();
            parts.extend(bytes.chunks(CHUNK_BYTES).map(|piece| Part::Pack(piece.to_vec())));
        }
        let parts: Vec<_> = parts.into_iter().map(|part| wire::SubmitRequest { part: Some(part) }).collect();
        let submitted = self.client(who).submit(tokio_stream::iter(parts)).await?;
        Ok(submitted.into_inner().series)
    }

    /// Which of the commits there are for somebody.
    async fn have(&self, who: &str, project: &str, oids: &[&Oid]) -> Result<Vec<String>, Status> {
        let request = wire::HaveRequest {
            repository: String::new(),
            oids: oids.iter().map(ToString::to_string).collect(),
            project: project.to_owned(),
        };
        Ok(self.client(who).have(request).await?.into_inner().oids)
    }

    async fn listed(&self, who: &str) -> Vec<String> {
        let list = self.client(who).list(wire::ListRequest {}).await.unwrap().into_inner();
        list.series.into_iter().map(|info| format!("{} of {} in {}", info.series, info.owner, info.project)).collect()
    }

    /// What somebody is told of a series by every call that names one: code, words and metadata of the refusal.
    async fn told(&self, who: &str, series: &str) -> Vec<(&'static str, Option<(Code, String, String)>)> {
        let id = series.to_owned();
        let refusal = |said: Option<Status>| {
            said.map(|status| {
                let mut metadata = status.metadata().clone();
                metadata.remove("date");
                (status.code(), status.message().replace(&id, "ID"), format!("{metadata:?}"))
            })
        };
        let series = series.to_owned();
        let mut client = self.client(who);
        let mut all = Vec::new();
        let status = client.status(wire::StatusRequest { series: series.clone() }).await.err();
        all.push(("status", refusal(status)));
        let watch = client.watch(wire::WatchRequest { series: series.clone() }).await.err();
        all.push(("watch", refusal(watch)));
        let report = client.report(wire::ReportRequest { series: series.clone() }).await.err();
        all.push(("report", refusal(report)));
        let explain = wire::ExplainRequest { series: series.clone(), patch: 1, target: "command".to_owned() };
        all.push(("explain", refusal(client.explain(explain).await.err())));
        all.push(("cancel", refusal(client.cancel(wire::CancelRequest { series }).await.err())));
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn to_another_project_a_series_is_one_that_does_not_exist() {
    let served = Served::start().await;
    let submission = Submission { user: "bob".into(), ..served.ground.submission() };
    let id = served.submit("ann", &submission, None).await.unwrap();
    let here = format!("{id} of ann in one");
    for who in ["bob", "ben", "carl"] {
        let (there, nothing) = (served.told(who, &id).await, served.told(who, "s-none").await);
        assert_eq!(there, nothing, "{who}");
        let may_cancel = who != "ben";
        for (call, refusal) in there {
            let code = refusal.map(|(code, ..)| code);
            let expected = if call == "cancel" && !may_cancel { Code::PermissionDenied } else { Code::NotFound };
            assert_eq!(code, Some(expected), "{who}: {call}");
        }
        assert_eq!(served.listed(who).await, [""; 0], "{who}");
    }
    for who in ["ann", "al", "amy", "dora", "root"] {
        assert_eq!(served.listed(who).await, [here.as_str()], "{who}");
    }
    for who in ["al", "amy", "dora"] {
        let told = served.told(who, &id).await;
        let codes: Vec<_> = told.into_iter().map(|(call, refusal)| (call, refusal.map(|it| (it.0, it.1)))).collect();
        let none = "series 'ID' has no report: it is accepted".to_owned();
        assert_eq!(codes[..2], [("status", None), ("watch", None)], "{who}");
        assert_eq!(codes[2..4], [("report", Some((Code::NotFound, none))), ("explain", None)], "{who}");
        assert_eq!(codes[4].1.as_ref().map(|it| it.0), Some(Code::PermissionDenied), "{who} is not ann");
    }
    let cancelled = served.client("ann").cancel(wire::CancelRequest { series: id }).await.unwrap();
    assert!(cancelled.into_inner().cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_is_of_a_project_of_its_caller() {
    let served = Served::start().await;
    let naming = |project: Option<&str>| {
        let project = project.map(|name| name.parse().unwrap());
        Submission { project, ..served.ground.submission() }
    };
    for (who, named, want) in [
        ("ann", None, Ok("one")),
        ("ann", Some("one"), Ok("one")),
        ("ann", Some("two"), Err((Code::PermissionDenied, "project 'two' is none of yours"))),
        ("ann", Some("nothing"), Err((Code::PermissionDenied, "project 'nothing' is none of yours"))),
        ("ann", Some("default"), Err((Code::PermissionDenied, "project 'default' is none of yours"))),
        ("carl", None, Ok("default")),
        ("dora", Some("two"), Ok("two")),
        ("dora", None, Err((Code::InvalidArgument, "name one with --project"))),
        ("root", None, Ok("default")),
        ("root", Some("two"), Ok("two")),
    ] {
        let submitted = served.submit(who, &naming(named), None).await;
        let have = served.have(who, named.unwrap_or_default(), &[]).await;
        match (submitted, want) {
            (Ok(id), Ok(project)) => {
                let entry = served.seat.coordinator().unwrap().register().entry(&SeriesId(id)).unwrap().unwrap();
                assert_eq!((entry.project.as_str(), entry.owner.as_str()), (project, who));
                have.unwrap();
            }
            (Err(status), Err((code, words))) => {
                assert!(status.code() == code && status.message().contains(words), "{who} {named:?}: {status}");
                assert_eq!(have.unwrap_err().code(), code, "{who} {named:?}");
            }
            (submitted, want) => panic!("{who} {named:?}: {submitted:?} instead of {want:?}"),
        }
    }
    for project in ["../one", "one/linux", "."] {
        assert_eq!(served.have("ann", project, &[]).await.unwrap_err().code(), Code::InvalidArgument, "{project}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_project_handed_in_is_missing_to_others_until_they_hand_it_in_too() {
    let served = Served::start().await;
    let theirs = served.ground.at("theirs");
    git(&served.ground.at("upstream"), &["clone", "-q", ".", theirs.to_str().unwrap()]);
    let mut secret = Vec::new();
    for text in ["secret", "more of it"] {
        std::fs::write(theirs.join("file"), text).unwrap();
        git(&theirs, &["commit", "-q", "-a", "-m", text]);
        secret.push(Oid::parse(&git(&theirs, &["rev-parse", "HEAD"])).unwrap());
    }
    let upstream = served.ground.commits[3].clone();
    let on = |commit: &Oid, to: &Oid| Submission {
        commit: commit.clone(),
        patches: Patches::Range { to: to.clone() },
        ..served.ground.submission()
    };
    let asked = [&upstream, &secret[0], &secret[1]];
    let (none, all) = ([upstream.to_string()], asked.map(ToString::to_string));
    let pack = packed(&theirs, &upstream, &Missing { base: false, to: Some(secret[1].clone()) });
    let submission = on(&upstream, &secret[1]);
    served.submit("bob", &submission, Some(&pack)).await.unwrap();
    let second = on(&secret[0], &secret[1]);
    served.submit("bob", &second, None).await.expect("it is there for the same project");
    assert_eq!(served.have("bob", "", &asked).await.unwrap(), all);
    for (who, project) in [("ann", ""), ("carl", ""), ("dora", "one"), ("root", "")] {
        assert_eq!(served.have(who, project, &asked).await.unwrap(), none, "{who}");
    }
    // Neither as a base nor as what goes on one, and in the words that there are for what nobody has.
    let unknown = Oid::parse(&"7".repeat(40)).unwrap();
    let refused = async |submission: &Submission, commit: &Oid| {
        let status = served.submit("ann", submission, None).await.unwrap_err();
        (status.code(), status.message().replace(commit.as_str(), "COMMIT"))
    };
    let nowhere = refused(&on(&upstream, &unknown), &unknown).await;
    assert_eq!(nowhere.0, Code::InvalidArgument);
    for (submission, commit) in [(&submission, &secret[1]), (&second, &secret[0])] {
        assert_eq!(refused(submission, commit).await, nowhere);
    }
    // Who knows the name of a file only does not get at it.
    let file = Oid::parse(&git(&theirs, &["rev-parse", "HEAD:file"])).unwrap();
    let (mine, tip) = hollow(&served.ground.at("hollow"), &file, Some(&upstream));
    let status = served.submit("ann", &on(&upstream, &tip), Some(&mine)).await.unwrap_err();
    assert_eq!((status.code(), status.message().replace(tip.as_str(), "COMMIT")), nowhere);
    assert_eq!(served.have("ann", "", &[&tip]).await.unwrap(), [""; 0]);
    // Who has it hands it in.
    let id = served.submit("ann", &submission, Some(&pack)).await.unwrap();
    served.submit("ann", &second, None).await.unwrap();
    assert_eq!(served.have("ann", "", &asked).await.unwrap(), all);
    assert!(served.listed("ann").await.contains(&format!("{id} of ann in one")));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_user_reads_a_blob_of_any_project_whatever_its_digest() {
    let served = Served::start().await;
    let cas = Arc::clone(&served.seat.coordinator().unwrap().kept().cas);
    let blob = cas.put(b"an object of somebody").unwrap();
    for (who, ..) in CALLERS {
        let blobs = RemoteBlobs::new(&served.connection(who)).unwrap();
        let denied = |done: Result<(), RemoteError>| assert!(matches!(done, Err(RemoteError::Denied { .. })), "{who}");
        denied(blobs.read(&blob).await.map(drop));
        denied(blobs.missing(&[blob, BlobDigest::of(b"nothing")]).await.map(drop));
    }
    let blobs = RemoteBlobs::new(&served.connection("w")).unwrap();
    assert_eq!(blobs.missing(&[blob]).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_taken_out_of_a_project_is_told_no_more() {
    let served = Served::start().await;
    let id = served.submit("ann", &served.ground.submission(), None).await.unwrap();
    let mut watching =
        served.client("amy").watch(wire::WatchRequest { series: id.clone() }).await.unwrap().into_inner();
    let moved: Vec<_> =
        CALLERS.iter().map(|it| if it.0 == "amy" { ("amy", Role::Read, &["two"][..]) } else { *it }).collect();
    std::fs::write(served.ground.at("access"), access(&moved) + "# another length\n").unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            match watching.message().await {
                Ok(Some(_)) => {}
                ended => return ended.map(|_| ()),
            }
        }
    });
    let status = ended.await.expect("it goes on").unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert_eq!(served.told("amy", &id).await, served.told("amy", "s-none").await);
    let seen: BTreeSet<String> = served.listed("amy").await.into_iter().collect();
    assert_eq!(seen, BTreeSet::new());
}
