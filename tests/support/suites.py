"""Which tests belong to which module: the two tables of `tools/mutate`.

The core is one suite: any of its fast tests may kill a mutant of any of its modules. A shell does one kind of
I/O, and has a suite of its own: files, or single tests of files that are slow as a whole. They run in the
process that holds the mutant, so they use real files, sockets and servers, but call the module themselves, or
have a gateway in a thread of that process (support.within).
"""

from __future__ import annotations

from typing import Final, NamedTuple

CORE: Final = (
    "signing.canonical",
    "signing.keys",
    "core.policy",
    "signing.signed_policy",
    "http.client_address",
    "http.paths",
    "core.grant",
    "signing.tokens",
    "signing.base64url",
    "signing.grammar",
    "signing.presign_scheme",
    "signing.source_scheme",
)
CORE_TESTS: Final = (
    "test_core_verifying.py",
    "test_core_granting.py",
    "test_core_timing.py",
    "test_core_presign.py",
    "test_core_carriers.py",
    "test_core_paths.py",
    "test_core_sources.py",
    "test_core_rewrite.py",
    "test_core_replies.py",
    "test_core_limits.py",
    "test_core_hiding.py",
    "test_core_terms.py",
    "test_signed_policy.py",
    "test_client_address.py",
    "test_convert.py",
    "test_properties.py",
)
_POOL: Final = (
    "test_lane.py::test_a_kept_connection_on_which_something_has_just_come_is_not_used",
    "test_lane.py::test_a_connection_that_was_verified_by_other_options_is_not_kept",
    "test_lane.py::test_a_connection_that_has_not_taken_the_last_upload_in_full_is_not_kept",
    "test_lane.py::test_a_pool_has_an_end",
)
_INTAKE: Final = (
    "test_lane_intake.py::test_a_client_is_served_again_and_again_with_bodies_and_without",
    "test_lane_intake.py::test_a_head_that_comes_byte_by_byte_on_a_kept_connection_is_served",
    "test_lane_intake.py::test_requests_that_come_at_once_on_a_kept_connection_are_served_in_order",
    "test_lane_intake.py::test_what_is_not_for_the_lane_goes_on_beside_it_whole_and_in_order",
    "test_lane_intake.py::test_a_client_that_went_beside_the_lane_is_served_there",
    "test_lane_intake.py::test_bytes_that_mitmproxy_holds_already_are_not_overtaken",
    "test_lane_intake.py::test_all_but_data_is_told_to_mitmproxy",
    "test_lane_intake.py::test_a_client_that_says_no_more_is_told_to_mitmproxy_and_may_still_be_answered",
    "test_lane_intake.py::test_what_is_read_otherwise_than_by_asyncio_stays_as_it_is",
)
_RECENT: Final = (
    "test_lane_recent.py::test_a_grant_is_forgotten_with_its_second",
    "test_lane_recent.py::test_a_grant_is_forgotten_with_its_registry",
    "test_lane_recent.py::test_the_same_bytes_from_elsewhere_are_judged_anew",
    "test_lane_recent.py::test_a_head_that_differs_in_one_byte_is_judged_anew",
    "test_lane_recent.py::test_nobody_fills_the_memory_with_heads",
    "test_lane_recent.py::test_what_was_asked_for_once_is_not_kept",
)
_DECIDED_ONCE: Final = (
    "test_floods.py::test_what_the_lane_has_refused_is_neither_decided_nor_redacted_twice",
    "test_floods.py::test_of_equal_heads_in_one_second_two_are_decided_on_and_the_others_known",
)
SHELLS: Final[dict[str, tuple[str, ...]]] = {
    "config.permissions": ("test_permissions.py",),
    "config.registry_file.storage": ("test_storing.py",),
    "config.registry_file.encryption": (
        "test_vault.py::test_joserfc_opens_what_we_wrote",
        "test_vault.py::test_we_open_what_joserfc_wrote",
        "test_vault.py::test_what_is_sealed_is_unsealed",
        "test_vault.py::test_joserfc_opens_a_file_with_the_key_that_a_passphrase_gave",
        "test_vault.py::test_no_byte_can_be_changed",
        "test_vault.py::test_no_byte_can_be_cut_off_or_added",
        "test_vault.py::test_a_header_that_was_forged_is_refused",
        "test_vault.py::test_hostile_parameters_are_refused_before_anything_is_derived",
        "test_vault.py::test_a_header_that_names_a_parameter_twice_is_refused",
        "test_vault.py::test_what_is_no_registry_is_refused",
        "test_vault.py::test_the_wrong_key_and_the_wrong_passphrase_are_told_apart_from_nothing_else",
        "test_vault.py::test_what_is_no_key_is_refused_without_repeating_it",
        "test_vault_bounds.py",
    ),
    "observe.audit_file": ("test_sinks.py",),
    "observe.audit_record": ("test_sinks.py",),
    "limits.stores.sqlite": (
        "test_sqlite_store.py",
        "test_stores.py::test_a_store_goes_on_in_another_loop_than_the_one_that_has_ended",
    ),
    "limits.stores.sqlite_batches": ("test_sqlite_store.py",),
    "limits.stores.redis": ("test_redis_store.py",),
    "limits.stores.redis_pipeline": ("test_redis_store.py",),
    "config.secret_sources": ("test_secrets.py",),
    "config.secret_commands": ("test_secrets.py",),
    "mitm.dialling": ("test_dialling.py",),
    "gateway.resolver": ("test_resolver.py",),
    "config.threads": ("test_resolver.py",),
    "http.networks": ("test_core_sources.py", "test_client_address.py", "test_dialling.py"),
    "serve.supervisor": ("test_supervisor.py",),
    "serve.worker_process": ("test_supervisor.py",),
    "serve.channel": ("test_supervisor.py",),
    "core.revocations": ("test_revocations.py",),
    "cli.revoke": (
        "test_revoke_verb.py",
        "test_revoking.py",
        "test_attacks_registry.py::test_an_expired_revoked_url_is_forgotten",
    ),
    "config.registry_file.read": ("test_registry.py", "test_registry_files.py"),
    "config.registry_file.open": ("test_registry.py",),
    "config.registry_file.edit": ("test_draft.py",),
    "limits.stores.memory": ("test_memory_store.py",),
    "limits.stores.open": ("test_memory_store.py",),
    "serve.drain": ("test_draining.py",),
    "serve.listeners": ("test_listening.py",),
    "observe.admin_server": ("test_admin_listener.py",),
    "mitm.flow.http2_frames": ("test_frames.py", "test_http2_turns.py"),
    "mitm.turns": ("test_turns.py",),
    "mitm.bell": ("test_bell.py",),
    "limits.client_shares": ("test_shares.py",),
    "mitm.flow.http2_status": ("test_http2_sides.py",),
    "mitm.flow.http2_encoder": ("test_http2_sides.py",),
    "mitm.flow.http2": ("test_http2_sides.py", "test_http2_turns.py"),
    "mitm.flow.upstream_protocol": ("test_upstream_protocol.py",),
    "mitm.half_closed": ("test_half_closed.py",),
    "mitm.backpressure": ("test_gates.py", "test_turns.py", "test_bell.py"),
    "mitm.small_reads": ("test_sips.py",),
    "mitm.tcp": ("test_sockets.py", "test_half_closed.py"),
    "mitm.last_bytes": ("test_last_bytes.py",),
    "config.live": ("test_keeper.py",),
    "mitm.lane.request_head": ("test_lane_heads.py",),
    "mitm.lane.availability": ("test_lane_opening.py",),
    "mitm.lane.attach": ("test_lane_opening.py",),
    "mitm.lane.upstream_tls": ("test_lane_opening.py",),
    "mitm.lane.judge": ("test_lane_addressing.py", *_DECIDED_ONCE),
    "mitm.lane.grant_cache": _RECENT,
    "mitm.lane.upstream_pool": ("test_lane_pool.py", *_POOL),
    "mitm.lane.write_batch": ("test_lane_pool.py",),
    "mitm.lane.request_body": ("test_lane_uploads.py",),
    "mitm.lane.response": ("test_lane_delivery.py",),
    "mitm.lane.upstream": ("test_lane_link.py",),
    "mitm.lane.client_reader": _INTAKE,
    "mitm.lane.layer": (
        "test_lane_layer.py",
        "test_lane_layer_order.py",
        "test_lane_layer_ends.py",
        "test_lane_layer_beside.py",
    ),
    "mitm.lane.shared": ("test_lane_express.py",),
    "mitm.flow.waits": ("test_waits.py", "test_waits_connections.py"),
    "mitm.deadlines": ("test_housekeeping.py", "test_housekeeping_bodies.py"),
    "mitm.lane.exchange": (
        "test_lane_exchange.py",
        "test_lane_exchange_bodies.py",
        "test_lane_exchange_ends.py",
        "test_lane_exchange_failures.py",
    ),
}


class Suite(NamedTuple):
    """Modules, the tests that are to notice a change of them, and the share that they have to notice.

    `together`: of all modules; else of each.
    """

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]
    wanted: float
    together: bool = False


def suites(modules: list[str]) -> list[Suite]:
    """The suites of the given modules, with those modules only. Raises KeyError for one that has none.

    Shells with the same tests are one suite: to run these before anything is changed takes long.
    """
    core = tuple(one for one in modules if one in CORE)
    found = [Suite("core", core, _files(CORE_TESTS), 0.95, together=True)] if core else []
    shells = dict.fromkeys(SHELLS[one] for one in modules if one not in core)
    for tests in shells:
        same = tuple(one for one in modules if one not in core and SHELLS[one] == tests)
        found.append(Suite(", ".join(same), same, _files(tests), 0.9))
    return found


def _files(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"tests/{name}" for name in names)
