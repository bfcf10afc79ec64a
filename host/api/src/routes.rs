//! Every route, in one table.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post, put};
use roost_engine::Engine;
use tokio::sync::Semaphore;

use crate::problem::Problem;
use crate::{
    bindings, decisions, drain, images, operations, plugins, records, repair, serial, store, vms,
};

/// One route.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, with parameters in braces.
    pub path: &'static str,
    handler: MethodRouter<Engine>,
}

/// Every route of the API.
#[must_use]
pub fn routes() -> Vec<Route> {
    let route = |method: Method, path, handler| Route {
        method,
        path,
        handler,
    };
    vec![
        route(Method::GET, "/healthz", get(records::health)),
        route(Method::GET, "/readyz", get(records::ready)),
        route(Method::GET, "/v1/vms", get(vms::list)),
        route(Method::POST, "/v1/vms", post(vms::create)),
        route(Method::GET, "/v1/vms/{vm}", get(vms::show)),
        route(Method::DELETE, "/v1/vms/{vm}", delete(vms::delete)),
        route(Method::GET, "/v1/vms/{vm}/logs", get(serial::logs)),
        route(
            Method::POST,
            "/v1/vms/{vm}/console-input",
            post(serial::input),
        ),
        route(
            Method::POST,
            "/v1/vms/{vm}/console-size",
            post(serial::resize),
        ),
        route(Method::GET, "/v1/vms/{vm}/devices", get(vms::devices)),
        route(Method::POST, "/v1/vms/{vm}/control", post(vms::control)),
        route(Method::POST, "/v1/vms/{vm}/{verb}", post(vms::verb)),
        route(Method::GET, "/v1/operations", get(operations::list)),
        route(
            Method::GET,
            "/v1/operations/{operation}",
            get(operations::show),
        ),
        route(
            Method::POST,
            "/v1/operations/{operation}/cancel",
            post(operations::cancel),
        ),
        route(Method::GET, "/v1/images", get(images::list)),
        route(Method::POST, "/v1/images", post(images::upload)),
        route(Method::GET, "/v1/plugins", get(plugins::list)),
        route(Method::GET, "/v1/plugins/{plugin}", get(plugins::show)),
        route(
            Method::POST,
            "/v1/plugins/{plugin}/revisions",
            post(plugins::push),
        ),
        route(
            Method::POST,
            "/v1/plugins/{plugin}/activate",
            post(plugins::activate),
        ),
        route(
            Method::GET,
            "/v1/plugins/{plugin}/revisions/{revision}/component",
            get(plugins::component),
        ),
        route(
            Method::POST,
            "/v1/plugins/{plugin}/rollback",
            post(plugins::rollback),
        ),
        route(
            Method::POST,
            "/v1/plugins/{plugin}/shadow",
            post(plugins::shadow),
        ),
        route(
            Method::DELETE,
            "/v1/plugins/{plugin}/shadow",
            delete(plugins::unshadow),
        ),
        route(
            Method::POST,
            "/v1/plugins/{plugin}/readmit",
            post(plugins::readmit),
        ),
        route(
            Method::POST,
            "/v1/plugins/{plugin}/replay",
            post(plugins::replay),
        ),
        route(Method::GET, "/v1/plugins/{plugin}/logs", get(plugins::logs)),
        route(Method::GET, "/v1/bindings", get(bindings::list)),
        route(Method::PUT, "/v1/bindings", put(bindings::bind)),
        route(
            Method::GET,
            "/v1/bindings/{hook}/{plugin}",
            get(bindings::show),
        ),
        route(
            Method::DELETE,
            "/v1/bindings/{hook}/{plugin}",
            delete(bindings::unbind),
        ),
        route(Method::GET, "/v1/decisions", get(decisions::list)),
        route(Method::GET, "/v1/decisions/{number}", get(decisions::show)),
        route(Method::GET, "/metrics", get(decisions::metrics)),
        route(Method::GET, "/v1/usage", get(records::usage)),
        route(Method::GET, "/v1/incidents", get(records::incidents)),
        route(
            Method::GET,
            "/v1/incidents/{incident}",
            get(repair::incident),
        ),
        route(Method::GET, "/v1/actions-required", get(repair::actions)),
        route(
            Method::GET,
            "/v1/actions-required/{action}",
            get(repair::action),
        ),
        route(
            Method::POST,
            "/v1/actions-required/{action}/retry",
            post(repair::retry_action),
        ),
        route(
            Method::POST,
            "/v1/actions-required/{action}/resolve",
            post(repair::resolve_action),
        ),
        route(Method::GET, "/v1/cleanup-tasks", get(repair::cleanup_tasks)),
        route(
            Method::GET,
            "/v1/cleanup-tasks/{task}",
            get(repair::cleanup_task),
        ),
        route(
            Method::POST,
            "/v1/cleanup-tasks/{task}/retry",
            post(repair::retry_cleanup),
        ),
        route(Method::GET, "/v1/audit", get(repair::audit)),
        route(Method::POST, "/v1/audit", post(repair::audit_and_repair)),
        route(Method::GET, "/v1/drain", get(drain::show)),
        route(Method::POST, "/v1/drain", post(drain::begin)),
        route(Method::DELETE, "/v1/drain", delete(drain::end)),
        route(Method::GET, "/v1/events", get(records::events)),
        route(Method::GET, "/v1/store/backup", get(store::backup)),
    ]
}

/// The whole API as a service.
pub fn router(engine: Engine) -> Router {
    let mut router = Router::new();
    for route in routes() {
        router = router.route(route.path, route.handler);
    }
    router
        .fallback(|| async {
            Problem::new(
                StatusCode::NOT_FOUND,
                "no-such-route",
                "there is no such route",
            )
        })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "this route has no such method",
            )
        })
        .layer(from_fn(crate::unread::read_first))
        .layer(from_fn_with_state(
            Arc::new(Semaphore::new(crate::limits::MAX_REQUESTS)),
            to_the_end,
        ))
        .with_state(engine)
}

/// Bounds how many requests are worked on at once, and carries what may change something to its
/// end: a client that goes away in the middle must not leave half of it done.
async fn to_the_end(
    State(places): State<Arc<Semaphore>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let failed = |_| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the request broke off; the host's log says why",
        )
    };
    // Waiting for a place ends with the client; having one does not.
    let place = places.acquire_owned().await.map_err(|_| failed(()))?;
    let safe = request.method().is_safe();
    let answer = async move {
        let _place = place;
        next.run(request).await
    };
    if safe {
        return Ok(answer.await);
    }
    tokio::spawn(answer).await.map_err(|_| failed(()))
}
