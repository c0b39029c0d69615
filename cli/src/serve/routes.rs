//! The routes, and what happens around each of them: a request's name, its key, a line of the log, a count.
use super::answer::answer;
use super::app::{App, Loaded};
use super::body;
use super::call::{Call, Form};
use super::errors::{Fault, json_response};
use super::tokens;
use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of a request's name that a client may choose.
const LONGEST_ID: usize = 128;
/// Routes that need no key: whoever watches over a server has none, and a page asks for it.
const OPEN: [&str; 6] = ["/", "/health", "/ready", "/ping", "/version", "/metrics"];

/// The name of a request, which its answer and the log repeat.
#[derive(Clone)]
struct Id(String);

pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/health", get(health))
        .route("/ping", get(health))
        .route("/ready", get(ready))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/tokenizer_info", get(tokenizer_info))
        .fallback(|| async { Fault::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here") })
        .method_not_allowed_fallback(|| async {
            let message = "this route has another method: GET or POST";
            Fault::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
        })
        .layer(from_fn_with_state(app.clone(), around))
        .with_state(app)
}

/// A request that is being answered; if it goes before it has a status, its client went.
struct Watched {
    app: Arc<App>,
    id: String,
    method: String,
    route: &'static str,
    status: Option<u16>,
    began: Instant,
}

impl Drop for Watched {
    fn drop(&mut self) {
        // What nginx says of clients that went.
        let status = self.status.unwrap_or(499);
        self.app.metrics.answered(self.route, status);
        let ms = self.began.elapsed().as_millis() as u64;
        let facts = json!({"id": self.id, "method": self.method, "route": self.route, "status": status, "ms": ms});
        self.app.log.request("request", facts);
    }
}

async fn around(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let id = id_of(request.headers());
    let path = request.extensions().get::<MatchedPath>().map(|p| p.as_str().to_string());
    let method = request.method().as_str().chars().take(16).collect();
    let route = ROUTES.iter().find(|r| path.as_deref() == Some(r)).copied().unwrap_or("other");
    let mut watched = Watched { app, id, method, route, status: None, began: Instant::now() };
    let open = path.as_deref().is_some_and(|p| OPEN.contains(&p));
    let allowed = if open { Ok(()) } else { watched.app.keys.check(request.headers()) };
    request.extensions_mut().insert(Id(watched.id.clone()));
    let mut response = match allowed {
        Ok(()) => next.run(request).await,
        Err(fault) => fault.into_response(),
    };
    if let Ok(id) = HeaderValue::from_str(&watched.id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    watched.status = Some(response.status().as_u16());
    response
}

/// The routes by which requests are counted: text that a client chose is none.
const ROUTES: [&str; 13] = [
    "/",
    "/health",
    "/ping",
    "/ready",
    "/version",
    "/metrics",
    "/v1/models",
    "/v1/models/{*name}",
    "/v1/completions",
    "/v1/chat/completions",
    "/tokenize",
    "/detokenize",
    "/tokenizer_info",
];

/// The name that the client gave, if it is one, or a new one.
fn id_of(headers: &HeaderMap) -> String {
    let given = headers.get(&REQUEST_ID).and_then(|v| v.to_str().ok());
    let fits = |id: &&str| !id.is_empty() && id.len() <= LONGEST_ID && id.bytes().all(|b| b.is_ascii_graphic());
    given.filter(fits).map_or_else(|| format!("{:016x}", super::call::fresh_seed()), String::from)
}

async fn page() -> Response {
    let mut response = Response::new(Body::from(include_str!("page.html")));
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, html);
    // The page needs nothing from elsewhere, and no other page may show it within itself.
    let policy = "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; \
                  frame-ancestors 'none'";
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

/// The process lives, whether the model is there or not, as long as its engine does.
async fn health(State(app): State<Arc<App>>) -> Result<Response, Fault> {
    match app.loaded().ok().and_then(|l| l.engine.stats().stopped) {
        None => Ok(json_response(StatusCode::OK, &json!({"status": "ok"}))),
        Some(why) => Err(Fault::new(StatusCode::SERVICE_UNAVAILABLE, "stopped", format!("the engine stopped: {why}"))),
    }
}

/// Requests are answered now.
async fn ready(State(app): State<Arc<App>>) -> Result<Response, Fault> {
    app.loaded()?;
    if app.draining() {
        return Err(lolm_runtime::serve::Refused::Draining.into());
    }
    health(State(app)).await
}

async fn version() -> Response {
    json_response(StatusCode::OK, &json!({"version": env!("CARGO_PKG_VERSION")}))
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let mut response = Response::new(Body::from(app.metrics.text(&app)));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn models(State(app): State<Arc<App>>) -> Result<Response, Fault> {
    let loaded = app.loaded()?;
    let all: Vec<Value> = loaded.names.iter().map(|name| card(loaded, name)).collect();
    Ok(json_response(StatusCode::OK, &json!({"object": "list", "data": all})))
}

async fn model(
    State(app): State<Arc<App>>,
    axum::extract::Path(name): axum::extract::Path<String>,
) -> Result<Response, Fault> {
    let loaded = app.loaded()?;
    match loaded.names.contains(&name) {
        true => Ok(json_response(StatusCode::OK, &card(loaded, &name))),
        false => {
            let message = format!("there is no model of this name; there is {}", loaded.names.join(", "));
            Err(Fault::new(StatusCode::NOT_FOUND, "model_not_found", message))
        }
    }
}

fn card(loaded: &Loaded, name: &str) -> Value {
    json!({"id": name, "object": "model", "created": loaded.created, "owned_by": "lolm", "root": loaded.names[0],
        "max_model_len": loaded.max_model_len})
}

async fn completions(State(app): State<Arc<App>>, request: Request) -> Result<Response, Fault> {
    generate(app, request, Form::Completion).await
}

async fn chat(State(app): State<Arc<App>>, request: Request) -> Result<Response, Fault> {
    generate(app, request, Form::Chat).await
}

async fn generate(app: Arc<App>, request: Request, form: Form) -> Result<Response, Fault> {
    let loaded = app.loaded()?.clone();
    let id = request.extensions().get::<Id>().map(|id| id.0.clone());
    let id = id.ok_or_else(|| Fault::internal("bug: a request without a name"))?;
    let body = body::read(request, &app.limits).await?;
    let call = aside(loaded.clone(), move |loaded| Call::read(form, &body, loaded)).await?;
    answer(app, loaded, call, &id).await
}

async fn tokenize(State(app): State<Arc<App>>, request: Request) -> Result<Response, Fault> {
    let loaded = app.loaded()?.clone();
    let body = body::read(request, &app.limits).await?;
    let out = aside(loaded, move |loaded| tokens::tokenize(&body, loaded)).await?;
    Ok(json_response(StatusCode::OK, &out))
}

async fn detokenize(State(app): State<Arc<App>>, request: Request) -> Result<Response, Fault> {
    let loaded = app.loaded()?.clone();
    let body = body::read(request, &app.limits).await?;
    let out = aside(loaded, move |loaded| tokens::detokenize(&body, loaded)).await?;
    Ok(json_response(StatusCode::OK, &out))
}

async fn tokenizer_info(State(app): State<Arc<App>>) -> Result<Response, Fault> {
    Ok(json_response(StatusCode::OK, &tokens::tokenizer_info(app.loaded()?)))
}

/// Runs what takes time for a long text (JSON, templates, tokens) where it holds up no connection.
async fn aside<T: Send + 'static>(
    loaded: Arc<Loaded>,
    work: impl FnOnce(&Loaded) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(move || work(&loaded)).await;
    done.map_err(|e| Fault::internal(format!("bug: {e}")))?
}
