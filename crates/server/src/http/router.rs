//! What the HTTP port answers, and who may ask.
//!
//! A door that shows or changes anything asks for the password of `requirepass`, as a bearer token or as the password of
//! basic authentication with any user. Probes (`/healthz`, `/readyz`) do not: whoever starts and stops containers has no
//! password.

use super::{HttpState, api, health};
use crate::{clock, metrics};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use command::rights::{Shown, shown};
use types::settings::Settings;

/// Every route of the port.
pub fn router(state: HttpState) -> Router {
    let shut = Router::new()
        .route("/metrics", get(metrics))
        .route_layer(middleware::from_fn_with_state(state.clone(), only_with_password));
    let open =
        Router::new().route("/", get(index)).route("/healthz", get(healthz)).route("/readyz", get(readyz));
    let api = api::routes(state.clone());
    shut.merge(open).fallback(nothing_here).with_state(state).merge(api)
}

async fn index(State(state): State<HttpState>) -> String {
    format!(
        "Annulet, node {}\n\n/v1/kv/KEY, /v1/keys, /v1/cluster; /v1/openapi.json describes them\n/metrics   figures for Prometheus\n/healthz   whether its threads move\n/readyz    whether it serves\n",
        state.node
    )
}

async fn nothing_here() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "nothing here; / tells what there is\n")
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
    if may_enter(&state.settings.get(), request.headers()) {
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

/// Whether a request shows the password, where one is set.
pub(crate) fn may_enter(settings: &Settings, headers: &HeaderMap) -> bool {
    if settings.requirepass.as_str().is_empty() {
        return true;
    }
    let lets_in = |password: &[u8]| shown(settings, password) != Shown::Wrong;
    let Some(header) = headers.get(header::AUTHORIZATION) else { return false };
    let header = header.as_bytes();
    let Some(space) = header.iter().position(|byte| *byte == b' ') else { return false };
    let (scheme, rest) = (&header[..space], header[space..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return lets_in(rest);
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return false;
    }
    let decoded = BASE64_STANDARD.decode(rest).unwrap_or_default();
    let colon = decoded.iter().position(|byte| *byte == b':');
    colon.is_some_and(|colon| lets_in(&decoded[colon + 1..]))
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
            may_enter(&settings, &headers)
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
