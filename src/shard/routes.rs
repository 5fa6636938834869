//! What stands at which path of the public port.

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// A WebSocket.
    Upgrade,
    /// Whether the process lives.
    Health,
    /// Whether clients are to be sent here.
    Ready,
}

/// [`crate::protocol::response::Refusal::NotFound`] names them.
const ROUTES: [(&str, Route); 3] =
    [("/ws", Route::Upgrade), ("/health", Route::Health), ("/ready", Route::Ready)];

/// What this path leads to, its query left out. Cost: one look at each route.
pub(super) fn find_route(path: &str) -> Option<Route> {
    ROUTES.iter().find(|(known, _)| *known == path).map(|(_, route)| *route)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::response::Refusal;

    #[test]
    fn paths_are_compared_as_a_whole() {
        let cases = [
            ("/ws", Some(Route::Upgrade)),
            ("/health", Some(Route::Health)),
            ("/ready", Some(Route::Ready)),
            ("/", None),
            ("", None),
            ("/ws/", None),
            ("/WS", None),
            ("/healthy", None),
        ];
        for (path, route) in cases {
            assert_eq!(find_route(path), route, "{path}");
        }
    }

    #[test]
    fn the_refusal_of_other_paths_names_every_route() {
        let refusal = String::from_utf8(Refusal::NotFound.response()).unwrap();
        assert!(ROUTES.iter().all(|(path, _)| refusal.contains(path)), "{refusal}");
    }
}
