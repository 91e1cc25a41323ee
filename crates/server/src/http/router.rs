//! What the HTTP port answers, and who may ask.
//!
//! A door that shows or changes anything asks for the password of `requirepass`, as a bearer token or as the password of
//! basic authentication with any user. Probes (`/healthz`, `/readyz`) do not: whoever starts and stops containers has no
//! password.

use super::connection::Caller;
use super::{HttpState, api, health, outgoing};
use crate::{clock, grpc, metrics};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use command::rights::{Shown, shown};
use std::borrow::Cow;
use types::settings::Settings;

/// Every route of the port.
pub fn router(state: HttpState) -> Router {
    let shut = Router::new()
        .route("/metrics", get(metrics))
        .route_layer(middleware::from_fn_with_state(state.clone(), only_with_password));
    let open =
        Router::new().route("/", get(index)).route("/healthz", get(healthz)).route("/readyz", get(readyz));
    let api = api::routes(state.clone());
    let api = api.layer(middleware::from_fn_with_state(state.clone(), outgoing::counted));
    let grpc = grpc::routes(state.clone());
    shut.merge(open).fallback(nothing_here).with_state(state).merge(api).merge(grpc)
}

async fn index(State(state): State<HttpState>) -> String {
    format!(
        "Annulet, node {}\n\n/v1/kv/KEY, /v1/keys, /v1/cluster; /v1/openapi.json describes them\n/metrics   figures for Prometheus\n/healthz   whether its threads move\n/readyz    whether it serves\n\ngRPC (HTTP/2 in the clear): kvstore, annulet.v1, health, reflection\n",
        state.node
    )
}

async fn nothing_here(headers: HeaderMap) -> Response {
    let content_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    if content_type.starts_with(b"application/grpc") {
        return tonic::Status::unimplemented(
            "there is no such service; reflection lists those that there are",
        )
        .into_http();
    }
    (StatusCode::NOT_FOUND, "nothing here; / tells what there is\n").into_response()
}

async fn metrics(State(state): State<HttpState>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(&state.source()))
}

async fn healthz(State(state): State<HttpState>) -> (StatusCode, String) {
    probe(health::health(&state.published, clock::now()))
}

async fn readyz(State(state): State<HttpState>) -> (StatusCode, String) {
    probe(health::readiness(&state.published, clock::now()))
}

fn probe(result: Result<(), String>) -> (StatusCode, String) {
    match result {
        Ok(()) => (StatusCode::OK, "ok\n".into()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}

/// Lets through who shows the password, or everybody where none is set.
async fn only_with_password(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    if lets_in(&state, &request) {
        return next.run(request).await;
    }
    let ask = [(header::WWW_AUTHENTICATE, "Bearer, Basic realm=\"annulet\"")];
    (
        StatusCode::UNAUTHORIZED,
        ask,
        "show the password of requirepass, as a bearer token or by basic authentication\n",
    )
        .into_response()
}

/// Whether a request shows a password that lets in, where one is set. Its connection is then no stranger's any more.
pub(crate) fn lets_in(state: &HttpState, request: &Request) -> bool {
    let lets_in = shown_by(&state.settings.get(), request.headers()) != Shown::Wrong;
    if let Some(caller) = request.extensions().get::<Caller>().filter(|_| lets_in) {
        caller.is_known();
    }
    lets_in
}

/// What the password is good for that a request shows.
pub(crate) fn shown_by(settings: &Settings, headers: &HeaderMap) -> Shown {
    match password_of(headers) {
        Some(password) => shown(settings, &password),
        None if settings.requirepass.as_str().is_empty() => Shown::Enters,
        None => Shown::Wrong,
    }
}

/// A bearer token, or the password of basic authentication with any user.
fn password_of(headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    let header = headers.get(header::AUTHORIZATION)?.as_bytes();
    let space = header.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = (&header[..space], header[space..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(rest.into());
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(rest).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some(decoded[colon + 1..].to_vec().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_asked_for() {
        let enters = |password: &str, shown: &str| {
            let mut headers = HeaderMap::new();
            if !shown.is_empty() {
                headers.insert(header::AUTHORIZATION, shown.parse().unwrap());
            }
            let mut settings = Settings::default();
            settings.set("requirepass", password).unwrap();
            shown_by(&settings, &headers) != Shown::Wrong
        };
        // any:secret, any:secret:more, secret, any:wrong
        for right in ["Bearer secret", "bearer  secret", "Basic YW55OnNlY3JldA=="] {
            assert!(enters("secret", right), "{right}");
            assert!(enters("", right), "{right}");
        }
        for wrong in [
            "",
            "secret",
            "Bearer",
            "Bearer ",
            "Bearer wrong",
            "Bearer secretsecret",
            "Digest secret",
            "Basic secret",
            "Basic YW55OnNlY3JldDptb3Jl",
            "Basic c2VjcmV0",
            "Basic YW55Ondyb25n",
        ] {
            assert!(!enters("secret", wrong), "{wrong}");
        }
        assert!(enters("", ""));
        assert!(enters("secret:more", "Basic YW55OnNlY3JldDptb3Jl"));
    }
}
