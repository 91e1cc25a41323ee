//! The HTTP API: keys as addresses, values as bodies, versions as entity tags.
//!
//! The routes are a table ([`ROUTES`]), from which the router is made, and which is held against the description that is served
//! ([`DESCRIPTION`], OpenAPI 3.1). Handlers make a command of a request, have it run at the desk, and tell its reply; errors are
//! [`Problem`]s.

use super::HttpState;
use super::connection::Caller;
use super::problem::Problem;
use super::query::{decoded, parameters};
use super::router::lets_in;
use crate::budget::Held;
use crate::desk::Question;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, any, on};
use bytes::{Bytes, BytesMut};
use command::Reply;
use serde::Serialize;
use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;
use types::settings::{ReadLevel, WriteLevel};
use wire::line::json::shown;

/// The description of the API.
pub const DESCRIPTION: &str = include_str!("openapi.json");

/// Seconds that a value will live.
const TTL: HeaderName = HeaderName::from_static("annulet-ttl");
const KEY_PATH: &str = "/v1/kv/";
/// Keys of a page, unless told otherwise, and at most.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 10_000;
/// Calls of SCAN for a page: a prefix that few keys have gives a short page rather than a long wait.
const STEPS_MAX: usize = 64;
/// Keys that one of these calls looks at, at most, and bytes of keys after which a page ends.
const STEP_KEYS: usize = 1000;
const PAGE_BYTES: usize = 4 * 1024 * 1024;
const MIB: usize = 1024 * 1024;

/// What a route answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Get,
    Put,
    Delete,
    Keys,
    Cluster,
    Describe,
}

/// Every route but the catch-all. A GET answers HEAD, too.
const ROUTES: &[(&str, MethodFilter, Operation)] = &[
    ("/v1/kv/{key}", MethodFilter::GET, Operation::Get),
    ("/v1/kv/{key}", MethodFilter::PUT, Operation::Put),
    ("/v1/kv/{key}", MethodFilter::DELETE, Operation::Delete),
    ("/v1/keys", MethodFilter::GET, Operation::Keys),
    ("/v1/cluster", MethodFilter::GET, Operation::Cluster),
    ("/v1/openapi.json", MethodFilter::GET, Operation::Describe),
];

/// The routes of the API.
pub(crate) fn routes(state: HttpState) -> Router {
    let mut router = Router::new();
    for (path, method, operation) in ROUTES.iter().copied() {
        let handler: MethodRouter<HttpState> =
            on(method, move |State(state): State<HttpState>, request: Request| {
                answer(state, operation, request)
            });
        // A key may have slashes, as they are; and it may be empty.
        match path.strip_suffix("{key}") {
            Some(prefix) => {
                router = router.route(&format!("{prefix}{{*key}}"), handler.clone()).route(prefix, handler)
            }
            None => router = router.route(path, handler),
        }
    }
    router
        .route("/v1/{*rest}", any(nothing_here))
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(state.clone(), only_with_password))
        .with_state(state)
}

async fn nothing_here() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "NOTFOUND",
        "there is no such route: /v1/openapi.json describes those that there are",
    )
}

async fn wrong_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "ERR",
        "this route does not take this method: /v1/openapi.json says which it takes",
    )
}

/// Lets through who shows the password, or everybody where none is set. The description is no secret.
async fn only_with_password(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    let is_open = request.uri().path() == "/v1/openapi.json";
    if is_open || lets_in(&state, &request) {
        return next.run(request).await;
    }
    let why = "show the password of requirepass, as a bearer token or by basic authentication";
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, "NOAUTH", why).into_response();
    let ask = HeaderValue::from_static("Bearer, Basic realm=\"annulet\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
    response
}

async fn answer(state: HttpState, operation: Operation, request: Request) -> Response {
    let answered = match operation {
        Operation::Get => get(state, request).await,
        Operation::Put => put(state, request).await,
        Operation::Delete => delete(state, request).await,
        Operation::Keys => keys(state, request).await,
        Operation::Cluster => cluster(state, request).await,
        Operation::Describe => Ok(json(Bytes::from_static(DESCRIPTION.as_bytes()))),
    };
    answered.unwrap_or_else(Problem::into_response)
}

fn json(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn key_of(request: &Request) -> Result<Bytes, Problem> {
    let path = request.uri().path();
    decoded(path.strip_prefix(KEY_PATH).unwrap_or_default(), false).map(Bytes::from)
}

fn asker(request: &Request) -> std::sync::Arc<str> {
    request.extensions().get::<Caller>().cloned().unwrap_or_default().asker
}

async fn ask(state: &HttpState, question: Question) -> Result<Reply<'static>, Problem> {
    match state.desk.ask(question).await {
        Reply::Error(error) => Err(error.into()),
        reply => Ok(reply),
    }
}

/// A reply that the command at hand never gives.
fn nonsense() -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "ERR",
        "the reply is not what this command gives: this is a bug",
    )
}

fn read_level(consistency: Option<&Vec<u8>>) -> Result<Option<ReadLevel>, Problem> {
    consistency
        .map(|word| match word.as_slice() {
            b"linearizable" => Ok(ReadLevel::Linearizable),
            b"stale" => Ok(ReadLevel::Stale),
            _ => Err(Problem::bad("the consistency of a read is linearizable or stale")),
        })
        .transpose()
}

fn write_level(consistency: Option<&Vec<u8>>) -> Result<Option<WriteLevel>, Problem> {
    consistency
        .map(|word| match word.as_slice() {
            b"all" => Ok(WriteLevel::All),
            b"quorum" => Ok(WriteLevel::Quorum),
            b"one" => Ok(WriteLevel::One),
            _ => Err(Problem::bad("the consistency of a write is all, quorum or one")),
        })
        .transpose()
}

/// What a key has to be for a request to be done.
#[derive(Debug, PartialEq, Eq)]
enum Condition {
    Any,
    Absent,
    Present,
    Version(String),
    /// It is never fulfilled.
    Never,
}

/// One version as an entity tag. People who type may leave the quotes out. A weak one is never the same (RFC 9110, 13.1.1).
fn version(tag: &str) -> Option<String> {
    let tag = tag.trim();
    let digits = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag);
    let is_version = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // A number that no version can be, or is written otherwise, is none.
    (is_version && digits.parse::<i64>().is_ok_and(|number| number.to_string() == digits))
        .then(|| digits.to_owned())
}

fn condition(headers: &HeaderMap) -> Result<Condition, Problem> {
    let text = |name: HeaderName| {
        let mut values = headers.get_all(&name).iter();
        let value = values.next().map(|value| value.to_str().unwrap_or("?").trim().to_owned());
        let is_one = values.next().is_none() && value.as_ref().is_none_or(|value| !value.contains(','));
        if is_one { Ok(value) } else { Err(Problem::bad(format!("{name} takes one version here"))) }
    };
    match (text(header::IF_MATCH)?.as_deref(), text(header::IF_NONE_MATCH)?.as_deref()) {
        (None, None) => Ok(Condition::Any),
        (Some("*"), None) => Ok(Condition::Present),
        (Some(tag), None) => Ok(version(tag).map_or(Condition::Never, Condition::Version)),
        (None, Some("*")) => Ok(Condition::Absent),
        (None, Some(_)) => Err(Problem::bad("If-None-Match of a write is *: only if there is no such key")),
        (Some(_), Some(_)) => Err(Problem::bad("If-Match or If-None-Match, not both")),
    }
}

fn tag(version: i64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

async fn get(state: HttpState, request: Request) -> Result<Response, Problem> {
    let key = key_of(&request)?;
    let parameters = parameters(request.uri().query(), &["consistency"])?;
    let read_level = read_level(parameters.get("consistency"))?;
    let question = Question { read_level, ..Question::new(&asker(&request), [Bytes::from("GETV"), key]) };
    let parts = match ask(&state, question).await? {
        Reply::Null => return Err(Problem::no_key()),
        Reply::Array(parts) => parts,
        _ => return Err(nonsense()),
    };
    let Ok([Reply::Integer(version), Reply::Integer(left_ms), Reply::Bulk(value)]) =
        <[Reply<'static>; 3]>::try_from(parts)
    else {
        return Err(nonsense());
    };
    let known =
        request.headers().get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let is_known = known.flat_map(|tags| tags.split(',')).any(|one| {
        one.trim() == "*" || self::version(one.trim().trim_start_matches("W/")) == Some(version.to_string())
    });
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, "application/octet-stream")], value.into_bytes()).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, tag(version));
    // Whoever keeps a copy is to ask whether it still holds.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if left_ms >= 0 {
        headers.insert(TTL, HeaderValue::from(left_ms.saturating_add(500) / 1000));
    }
    Ok(response)
}

async fn put(state: HttpState, request: Request) -> Result<Response, Problem> {
    let key = key_of(&request)?;
    let parameters = parameters(request.uri().query(), &["ttl", "consistency"])?;
    let write_level = write_level(parameters.get("consistency"))?;
    let condition = condition(request.headers())?;
    let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
    let mut held = state.budget.hold();
    let value = whole_body(&state, request, &mut held).await?;
    let mut args = vec![Bytes::from("SETV"), key, value];
    match condition {
        Condition::Any => {}
        Condition::Absent => args.push(Bytes::from("NX")),
        Condition::Present => args.push(Bytes::from("XX")),
        Condition::Version(version) => args.extend([Bytes::from("IFVERSION"), Bytes::from(version)]),
        Condition::Never => return Err(Problem::precondition()),
    }
    if let Some(seconds) = parameters.get("ttl") {
        args.extend([Bytes::from("EX"), Bytes::from(seconds.clone())]);
    }
    match ask(&state, Question { write_level, ..Question::new(&caller.asker, args) }).await? {
        Reply::Integer(version) => {
            Ok((StatusCode::NO_CONTENT, [(header::ETAG, tag(version))]).into_response())
        }
        Reply::Null => Err(Problem::precondition()),
        _ => Err(nonsense()),
    }
}

async fn delete(state: HttpState, request: Request) -> Result<Response, Problem> {
    let key = key_of(&request)?;
    let parameters = parameters(request.uri().query(), &["consistency"])?;
    let write_level = write_level(parameters.get("consistency"))?;
    let mut args = vec![Bytes::from("DELV"), key];
    let condition = condition(request.headers())?;
    match &condition {
        Condition::Any | Condition::Present => {}
        Condition::Version(version) => args.extend([Bytes::from("IFVERSION"), Bytes::from(version.clone())]),
        Condition::Absent => return Err(Problem::bad("a DELETE takes If-Match, not If-None-Match")),
        Condition::Never => return Err(Problem::precondition()),
    }
    match ask(&state, Question { write_level, ..Question::new(&asker(&request), args) }).await? {
        Reply::Integer(1) => Ok(StatusCode::NO_CONTENT.into_response()),
        Reply::Integer(_) if condition == Condition::Any => Err(Problem::no_key()),
        Reply::Integer(_) | Reply::Null => Err(Problem::precondition()),
        _ => Err(nonsense()),
    }
}

/// The body of a request, taken in as it comes and within bounds.
async fn whole_body(state: &HttpState, request: Request, held: &mut Held) -> Result<Bytes, Problem> {
    let settings = state.settings.get();
    let most = usize::try_from(settings.max_request_bytes.0).unwrap_or(usize::MAX);
    let too_large = || {
        let why = format!("a value may have {most} bytes here (max_request_bytes)");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "ERR", why)
    };
    // What is declared is refused early; what is kept follows what comes.
    if request.body().size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let patience = Duration::from_millis(settings.request_incomplete_timeout_ms)
        + Duration::from_secs((most / MIB) as u64);
    let mut body = request.into_body();
    let taken = tokio::time::timeout(patience, async {
        let (mut first, mut whole) = (Bytes::new(), BytesMut::new());
        while let Some(piece) = next_piece(&mut body).await? {
            if first.is_empty() {
                first = piece;
            } else {
                if whole.is_empty() {
                    whole.extend_from_slice(&first);
                }
                whole.extend_from_slice(&piece);
            }
            let bytes = first.len().max(whole.len());
            if bytes > most {
                return Err(too_large());
            }
            if !held.set(bytes) {
                let why = "TRYAGAIN this node has too many bytes of clients' requests in hand (maxmemory_clients): ask again in a moment, or another node";
                return Err(Problem {
                    is_retryable: true,
                    ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, "TRYAGAIN", why)
                });
            }
        }
        Ok(if whole.is_empty() { first } else { whole.freeze() })
    });
    let late = || Problem::new(StatusCode::REQUEST_TIMEOUT, "ERR", "the request did not come whole in time");
    taken.await.unwrap_or_else(|_| Err(late()))
}

async fn next_piece(body: &mut Body) -> Result<Option<Bytes>, Problem> {
    loop {
        match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
            None => return Ok(None),
            Some(Err(_)) => return Err(Problem::bad("the request broke off")),
            // Trailers say nothing here.
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) => return Ok(Some(piece)),
                Err(_) => continue,
            },
        }
    }
}

#[derive(Serialize)]
struct Key<'a> {
    key: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
}

#[derive(Serialize)]
struct Page<'a> {
    keys: Vec<Key<'a>>,
    /// Text, since not every reader of JSON keeps so large a number.
    cursor: Option<&'a str>,
}

async fn keys(state: HttpState, request: Request) -> Result<Response, Problem> {
    let parameters = parameters(request.uri().query(), &["prefix", "limit", "cursor"])?;
    let limit = match parameters.get("limit") {
        None => LIMIT,
        Some(text) => {
            let limit = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            limit
                .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                .ok_or_else(|| Problem::bad(format!("limit is a number from 1 to {LIMIT_MAX}")))?
        }
    };
    let pattern = parameters.get("prefix").map(|prefix| Bytes::from(pattern_of(prefix)));
    let mut cursor = parameters.get("cursor").map_or(Bytes::from("0"), |cursor| Bytes::from(cursor.clone()));
    let asker = asker(&request);
    let (mut found, mut bytes): (Vec<Vec<u8>>, usize) = (Vec::new(), 0);
    for _ in 0..STEPS_MAX {
        let count = Bytes::from((limit - found.len()).min(STEP_KEYS).to_string());
        let mut args = vec![Bytes::from("SCAN"), cursor.clone(), Bytes::from("COUNT"), count];
        args.extend(pattern.iter().flat_map(|pattern| [Bytes::from("MATCH"), pattern.clone()]));
        let reply = ask(&state, Question::new(&asker, args)).await?;
        let (next, keys) = scanned(reply).ok_or_else(nonsense)?;
        bytes += keys.iter().map(Vec::len).sum::<usize>();
        found.extend(keys);
        cursor = next;
        if &cursor[..] == b"0" || found.len() >= limit || bytes >= PAGE_BYTES {
            break;
        }
    }
    let keys = found.iter().map(|key| shown(key, false)).map(|(key, encoding)| Key { key, encoding });
    let cursor = std::str::from_utf8(&cursor).ok().filter(|cursor| *cursor != "0");
    let page = Page { keys: keys.collect(), cursor };
    serde_json::to_vec(&page).map(|body| json(body.into())).map_err(|_| nonsense())
}

/// The next cursor and the keys of a reply to SCAN.
fn scanned(reply: Reply<'static>) -> Option<(Bytes, Vec<Vec<u8>>)> {
    let bytes =
        |reply: Reply<'static>| if let Reply::Bulk(bytes) = reply { Some(bytes.into_owned()) } else { None };
    let Reply::Array(parts) = reply else { return None };
    let [cursor, Reply::Array(keys)] = <[Reply<'static>; 2]>::try_from(parts).ok()? else { return None };
    Some((bytes(cursor)?.into(), keys.into_iter().filter_map(bytes).collect()))
}

/// The pattern that every key with this prefix fits, and no other.
fn pattern_of(prefix: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(prefix.len() + 1);
    for &byte in prefix {
        if b"*?[]\\^-".contains(&byte) {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern.push(b'*');
    pattern
}

async fn cluster(state: HttpState, request: Request) -> Result<Response, Problem> {
    parameters(request.uri().query(), &[])?;
    match ask(&state, Question::new(&asker(&request), ["ANNULET", "STATUS"])).await? {
        Reply::Bulk(status) => Ok(json(status.into_bytes())),
        _ => Err(nonsense()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Method;
    use std::collections::BTreeSet;

    /// The methods of each path, as the description writes them: what it is held against.
    fn routed() -> BTreeSet<(String, String)> {
        let methods = [Method::GET, Method::PUT, Method::DELETE];
        let name = |filter: MethodFilter| {
            let of = |method: &Method| MethodFilter::try_from(method.clone()).is_ok_and(|of| of == filter);
            methods.iter().find(|method| of(method)).expect("a known method").as_str().to_ascii_lowercase()
        };
        ROUTES.iter().map(|(path, filter, _)| ((*path).to_owned(), name(*filter))).collect()
    }

    #[test]
    fn the_description_and_the_routes_are_the_same() {
        let description: serde_json::Value = serde_json::from_str(DESCRIPTION).expect("JSON");
        assert_eq!(description["openapi"], "3.1.0");
        let mut described = BTreeSet::new();
        for (path, item) in description["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("operations") {
                if method == "parameters" {
                    continue;
                }
                assert!(
                    operation["responses"].as_object().is_some_and(|all| !all.is_empty()),
                    "{method} {path}"
                );
                described.insert((path.clone(), method.clone()));
            }
        }
        // Those beside the API, which the router lists itself.
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert!(described.remove(&(path.to_owned(), "get".to_owned())), "{path}");
        }
        assert_eq!(described, routed());
    }

    #[test]
    fn every_reference_of_the_description_leads_somewhere() {
        let description: serde_json::Value = serde_json::from_str(DESCRIPTION).expect("JSON");
        for reference in
            DESCRIPTION.split("\"$ref\": \"#").skip(1).map(|rest| rest.split('"').next().unwrap_or(""))
        {
            assert!(description.pointer(reference).is_some(), "{reference}");
        }
    }

    #[test]
    fn conditions() {
        let of = |pairs: &[(HeaderName, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(name.clone(), value.parse().unwrap());
            }
            condition(&headers)
        };
        let (if_match, if_none) = (header::IF_MATCH, header::IF_NONE_MATCH);
        assert_eq!(of(&[]), Ok(Condition::Any));
        assert_eq!(of(&[(if_match.clone(), "\"17\"")]), Ok(Condition::Version("17".into())));
        assert_eq!(of(&[(if_match.clone(), "17")]), Ok(Condition::Version("17".into())));
        assert_eq!(of(&[(if_match.clone(), "*")]), Ok(Condition::Present));
        assert_eq!(of(&[(if_none.clone(), "*")]), Ok(Condition::Absent));
        for never in ["W/\"17\"", "\"x\"", "\"-1\"", "\"017\"", "\"99999999999999999999\"", "\"\""] {
            assert_eq!(of(&[(if_match.clone(), never)]), Ok(Condition::Never), "{never}");
        }
        assert!(of(&[(if_match.clone(), "\"1\", \"2\"")]).is_err());
        assert!(of(&[(if_match.clone(), "\"1\""), (if_match.clone(), "\"2\"")]).is_err());
        assert!(of(&[(if_none.clone(), "\"1\"")]).is_err());
        assert!(of(&[(if_match, "*"), (if_none, "*")]).is_err());
    }

    #[test]
    fn a_prefix_means_itself() {
        for prefix in [&b"a"[..], b"", b"*", b"a?[b]", b"\\", b"[^a-b]", b"\xff"] {
            let pattern = pattern_of(prefix);
            let with = |end: &[u8]| [prefix, end].concat();
            assert!(command::glob::matches(&pattern, &with(b"")), "{prefix:?}");
            assert!(command::glob::matches(&pattern, &with(b"x*y")), "{prefix:?}");
            assert_eq!(command::glob::matches(&pattern, b"zzz"), prefix.is_empty(), "{prefix:?}");
        }
    }
}
