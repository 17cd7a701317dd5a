"""The route and its policy are what the Gateway API's and Envoy Gateway's own CRDs take, to the last field."""

from collections.abc import Mapping

import pytest

from videogen_operator.kinds.model_release import route
from videogen_operator.kinds.model_release.observed import observe
from videogen_operator.plan import Key
from videogen_testing.control_plane import Api, ControlPlane
from videogen_testing.releases import NAMESPACE, SERVICE, SETTINGS, START, Objects, a_gateway, a_release, name_of
from videogen_testing.upstream_crds import gateway_definitions, install

ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes"
FILTERS = "/apis/gateway.envoyproxy.io/v1alpha1/namespaces/default/httproutefilters"
POLICIES = "/apis/gateway.envoyproxy.io/v1alpha1/namespaces/default/backendtrafficpolicies"
STRICT = "?dryRun=All&fieldValidation=Strict"


@pytest.fixture
def gateway_api(plane: ControlPlane) -> Api:
    install(plane.api, gateway_definitions())
    return plane.api


@pytest.mark.parametrize("settings", [{}, {"requests_per_minute": "30"}], ids=["without a rate limit", "with one"])
def test_every_field_of_route_and_policy_is_known_and_kept(gateway_api: Api, settings: Mapping[str, str]) -> None:
    observed = observe(Objects(a_release("1.0.0"), a_release("1.1.0"), a_gateway()), Key("ModelRelease", NAMESPACE, SERVICE))
    assert observed
    settings = SETTINGS | settings
    split = route.backends(observed.releases, {name_of("1.0.0"): 90, name_of("1.1.0"): 10}, (), START)
    made = (
        (ROUTES, route.route(observed, split, (), settings)),
        (ROUTES, route.route(observed, (), (), settings, closed=True)),
        (ROUTES, route.route(observed, (), (), settings | {"traffic_policy": ""}, closed=True)),
        (POLICIES, route.traffic_policy(observed, observed.releases, settings)),
        (FILTERS, route.refusal(observed)),
    )
    for path, manifest in made:
        manifest["metadata"] |= {"namespace": "default"}
        spec = gateway_api.create(path + STRICT, manifest)["spec"]
        assert _kept(manifest["spec"], spec) == manifest["spec"]


def _kept(wanted: object, found: object) -> object:
    """What of the found value was wanted: without the defaults that the API server has filled in."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return {name: _kept(value, found.get(name)) for name, value in wanted.items()}
    if isinstance(wanted, list) and isinstance(found, list):
        return [_kept(*pair) for pair in zip(wanted, found, strict=True)]
    return found
