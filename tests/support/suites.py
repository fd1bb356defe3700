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
    "http.patterns",
    "core.grant",
    "core.presign_checks",
    "core.source_checks",
    "core.common_checks",
    "signing.tokens",
    "signing.base64url",
    "signing.grammar",
    "signing.presign_scheme",
    "signing.key_token",
    "signing.source_scheme",
)
CORE_TESTS: Final = (
    "signing/test_keys.py",
    "signing/test_tokens.py",
    "signing/test_base64url.py",
    "signing/test_canonical.py",
    "core/test_policy.py",
    "core/test_decision.py",
    "signing/test_signer.py",
    "core/test_recognise.py",
    "core/test_grant.py",
    "core/test_presign_checks.py",
    "attacks/test_timing.py",
    "signing/test_presign_scheme.py",
    "http/test_message.py",
    "http/test_query.py",
    "signing/test_carrier_names.py",
    "http/test_paths.py",
    "signing/test_source_scheme.py",
    "http/test_networks.py",
    "core/test_source_rules.py",
    "core/test_rewrite_request.py",
    "core/test_rewrite_response.py",
    "core/test_links.py",
    "core/test_masking.py",
    "core/test_response_body.py",
    "limits/test_counter.py",
    "limits/test_rules.py",
    "limits/test_verdict.py",
    "limits/test_circuit_breaker.py",
    "signing/test_tokens_at_the_start.py",
    "signing/test_signed_policy.py",
    "core/test_grant_signed_policy.py",
    "http/test_client_address.py",
    "explain/test_convert.py",
    "core/test_decide.py",
)
_POOL: Final = (
    "mitm/lane/test_lane.py::test_a_kept_connection_on_which_something_has_just_come_is_not_used",
    "mitm/lane/test_lane.py::test_a_connection_that_was_verified_by_other_options_is_not_kept",
    "mitm/lane/test_lane.py::test_a_connection_that_has_not_taken_the_last_upload_in_full_is_not_kept",
    "mitm/lane/test_lane.py::test_a_pool_has_an_end",
)
_EXCHANGE: Final = (
    "mitm/lane/test_exchange.py",
    "mitm/lane/test_exchange_bodies.py",
    "mitm/lane/test_exchange_ends.py",
    "mitm/lane/test_exchange_failures.py",
)
_LAYER: Final = (
    "mitm/lane/test_layer.py",
    "mitm/lane/test_layer_order.py",
    "mitm/lane/test_layer_ends.py",
    "mitm/lane/test_layer_beside.py",
    "mitm/lane/test_layer_take_back.py",
)
_INTAKE: Final = (
    "mitm/lane/test_client_reader.py::test_a_client_is_served_again_and_again_with_bodies_and_without",
    "mitm/lane/test_client_reader.py::test_a_head_that_comes_byte_by_byte_on_a_kept_connection_is_served",
    "mitm/lane/test_client_reader.py::test_requests_that_come_at_once_on_a_kept_connection_are_served_in_order",
    "mitm/lane/test_client_reader.py::test_what_is_not_for_the_lane_goes_on_beside_it_whole_and_in_order",
    "mitm/lane/test_client_reader.py::test_a_client_that_went_beside_the_lane_is_served_there",
    "mitm/lane/test_client_reader.py::test_bytes_that_mitmproxy_holds_already_are_not_overtaken",
    "mitm/lane/test_client_reader.py::test_all_but_data_is_told_to_mitmproxy",
    "mitm/lane/test_client_reader.py::test_a_client_that_says_no_more_is_told_to_mitmproxy_and_may_still_be_answered",
    "mitm/lane/test_client_reader.py::test_what_is_read_otherwise_than_by_asyncio_stays_as_it_is",
)
_RECENT: Final = (
    "mitm/lane/test_grant_cache.py::test_a_grant_is_forgotten_with_its_second",
    "mitm/lane/test_grant_cache.py::test_a_grant_is_forgotten_with_its_registry",
    "mitm/lane/test_grant_cache.py::test_the_same_bytes_from_elsewhere_are_judged_anew",
    "mitm/lane/test_grant_cache.py::test_a_head_that_differs_in_one_byte_is_judged_anew",
    "mitm/lane/test_grant_cache.py::test_nobody_fills_the_memory_with_heads",
    "mitm/lane/test_grant_cache.py::test_what_was_asked_for_once_is_not_kept",
)
_DECIDED_ONCE: Final = (
    "attacks/test_floods.py::test_what_the_lane_has_refused_is_neither_decided_nor_redacted_twice",
    "attacks/test_floods.py::test_of_equal_heads_in_one_second_two_are_decided_on_and_the_others_known",
)
SHELLS: Final[dict[str, tuple[str, ...]]] = {
    "config.permissions": ("config/test_permissions.py",),
    "config.registry_file.storage": ("config/registry_file/test_storage.py",),
    "config.registry_file.encryption": (
        "config/registry_file/test_encryption.py::test_joserfc_opens_what_we_wrote",
        "config/registry_file/test_encryption.py::test_we_open_what_joserfc_wrote",
        "config/registry_file/test_encryption.py::test_what_is_sealed_is_unsealed",
        "config/registry_file/test_encryption.py::test_joserfc_opens_a_file_with_the_key_that_a_passphrase_gave",
        "config/registry_file/test_encryption.py::test_no_byte_can_be_changed",
        "config/registry_file/test_encryption.py::test_no_byte_can_be_cut_off_or_added",
        "config/registry_file/test_encryption.py::test_a_header_that_was_forged_is_refused",
        "config/registry_file/test_encryption.py::test_hostile_parameters_are_refused_before_anything_is_derived",
        "config/registry_file/test_encryption.py::test_a_header_that_names_a_parameter_twice_is_refused",
        "config/registry_file/test_encryption.py::test_what_is_no_registry_is_refused",
        "config/registry_file/test_encryption.py::test_the_wrong_key_and_the_wrong_passphrase_are_told_apart_from_nothing_else",
        "config/registry_file/test_encryption.py::test_what_is_no_key_is_refused_without_repeating_it",
        "config/registry_file/test_encryption_bounds.py",
    ),
    "observe.audit_file": ("observe/test_audit_file.py",),
    "observe.audit_record": ("observe/test_audit_file.py",),
    "limits.stores.sqlite": (
        "limits/stores/test_sqlite.py",
        "limits/stores/test_store.py::test_a_store_goes_on_in_another_loop_than_the_one_that_has_ended",
    ),
    "limits.stores.sqlite_file": (
        "limits/stores/test_sqlite.py",
        "limits/stores/test_store.py::test_a_store_goes_on_in_another_loop_than_the_one_that_has_ended",
    ),
    "limits.stores.sqlite_batches": ("limits/stores/test_sqlite.py",),
    "limits.stores.redis": (
        "limits/stores/test_redis.py",
        "limits/stores/test_redis_pipeline.py",
    ),
    "limits.stores.redis_pipeline": (
        "limits/stores/test_redis.py",
        "limits/stores/test_redis_pipeline.py",
    ),
    "config.secret_sources": ("config/test_secret_sources.py",),
    "config.secret_commands": ("config/test_secret_sources.py",),
    "mitm.dialling": ("mitm/test_dialling.py",),
    "gateway.destination": ("mitm/test_dialling.py",),
    "gateway.resolver": ("gateway/test_resolver.py",),
    "mitm.client_state": ("mitm/test_client_state.py",),
    "config.threads": ("gateway/test_resolver.py",),
    "http.networks": (
        "signing/test_source_scheme.py",
        "http/test_networks.py",
        "core/test_source_rules.py",
        "http/test_client_address.py",
        "mitm/test_dialling.py",
    ),
    "serve.supervisor": ("serve/test_supervisor.py",),
    "serve.pace": ("serve/test_supervisor.py",),
    "serve.worker_process": ("serve/test_supervisor.py",),
    "serve.channel": ("serve/test_supervisor.py",),
    "core.revocations": ("core/test_revocations.py",),
    "core.trailers": ("core/test_trailers.py",),
    "core.grpc_answer": ("core/test_grpc_answer.py",),
    "core.masked_fields": ("core/test_masked_fields.py",),
    "core.registry_scope": ("core/test_registry_scope.py",),
    "core.registry_token": ("core/test_registry_token.py",),
    "cli.revocation_target": (
        "cli/test_revoke.py",
        "cli/test_revoke_claims.py",
        "cli/test_revoked_names.py",
    ),
    "cli.revoke": (
        "cli/test_revoke.py",
        "cli/test_revoke_claims.py",
        "attacks/test_registry.py::test_an_expired_revoked_url_is_forgotten",
    ),
    "config.registry_file.read": (
        "config/registry_file/test_read.py",
        "config/registry_file/test_kept_by_hand.py",
    ),
    "config.registry_file.build": (
        "config/registry_file/test_read.py",
        "config/registry_file/test_kept_by_hand.py",
    ),
    "config.registry_file.entries": (
        "config/registry_file/test_read.py",
        "config/registry_file/test_kept_by_hand.py",
    ),
    "config.registry_file.open": ("config/registry_file/test_read.py",),
    "config.registry_file.edit": ("config/registry_file/test_edit.py",),
    "limits.stores.memory": (
        "limits/stores/test_memory.py",
        "limits/stores/test_open.py",
    ),
    "limits.stores.open": (
        "limits/stores/test_memory.py",
        "limits/stores/test_open.py",
    ),
    "serve.drain": ("serve/test_drain.py",),
    "serve.listeners": ("serve/test_listeners.py",),
    "observe.admin_server": ("observe/test_admin_server.py",),
    "mitm.flow.http2_frames": ("mitm/flow/test_http2_frames.py", "mitm/flow/test_http2_turns.py"),
    "mitm.flow.http2_budget": ("mitm/flow/test_http2_frames.py",),
    "mitm.flow.http2_heads": ("mitm/flow/test_http2_frames.py",),
    "mitm.flow.hpack_fields": ("mitm/flow/test_http2_frames.py",),
    "mitm.http2_turns": ("mitm/test_http2_turns.py",),
    "limits.client_shares": ("limits/test_client_shares.py",),
    "mitm.flow.http2_status": ("mitm/flow/test_http2.py",),
    "mitm.flow.http2_encoder": ("mitm/flow/test_http2.py",),
    "mitm.flow.http2_side": ("mitm/flow/test_http2.py", "mitm/flow/test_http2_turns.py"),
    "mitm.flow.http2_server": ("mitm/flow/test_http2.py", "mitm/flow/test_http2_turns.py"),
    "mitm.flow.http2_client": ("mitm/flow/test_http2.py", "mitm/flow/test_goaway.py"),
    "mitm.flow.upstream_protocol": ("mitm/flow/test_upstream_protocol.py",),
    "mitm.half_closed": ("mitm/test_half_closed.py",),
    "mitm.waker": ("mitm/test_waker.py",),
    "mitm.backpressure": ("mitm/test_backpressure.py", "mitm/test_http2_turns.py", "mitm/test_waker.py"),
    "mitm.small_reads": ("mitm/test_small_reads.py",),
    "mitm.tcp": ("mitm/test_tcp.py", "mitm/test_half_closed.py"),
    "mitm.last_bytes": ("mitm/test_last_bytes.py",),
    "config.live": ("config/test_live.py",),
    "config.active_config": ("config/test_live.py",),
    "mitm.lane.request_head": ("mitm/lane/test_request_head.py",),
    "mitm.lane.availability": ("mitm/lane/test_availability.py",),
    "mitm.lane.attach": ("mitm/lane/test_availability.py",),
    "mitm.lane.upstream_tls": ("mitm/lane/test_availability.py", "mitm/test_upstream_tls.py"),
    "mitm.upstream_certificates": ("mitm/test_upstream_tls.py",),
    "mitm.flow.routes": ("mitm/test_upstream_tls.py",),
    "gateway.address_race": ("gateway/test_address_race.py",),
    "gateway.http_tunnel": ("mitm/test_upstream_proxy.py",),
    "gateway.socks5": ("mitm/test_upstream_proxy.py",),
    "gateway.outward": ("mitm/test_upstream_proxy.py", "mitm/test_dialling.py"),
    "config.proxy_url": ("config/test_way_out.py", "core/test_way_out.py"),
    "config.way_out": ("config/test_way_out.py",),
    "config.upstream_tls": ("config/test_upstream_tls.py",),
    "mitm.lane.judge": ("mitm/lane/test_judge.py", *_DECIDED_ONCE),
    "mitm.lane.grant_cache": _RECENT,
    "mitm.lane.upstream_pool": ("mitm/lane/test_upstream_pool.py", *_POOL),
    "mitm.lane.write_batch": ("mitm/lane/test_upstream_pool.py",),
    "mitm.lane.request_body": ("mitm/lane/test_request_body.py",),
    "mitm.lane.response": ("mitm/lane/test_response.py",),
    "mitm.lane.body_pieces": ("mitm/lane/test_response.py",),
    "mitm.lane.upstream": ("mitm/lane/test_upstream.py",),
    "mitm.lane.upstream_socket": ("mitm/lane/test_upstream.py", "mitm/lane/test_read_pacing.py"),
    "mitm.lane.read_pacing": ("mitm/lane/test_read_pacing.py",),
    "mitm.lane.client_reader": _INTAKE,
    "mitm.lane.layer": _LAYER,
    "mitm.lane.pipeline": _LAYER,
    "mitm.lane.client_writer": _LAYER,
    "mitm.lane.client_gate": _LAYER,
    "mitm.lane.request_buffer": ("mitm/lane/test_request_buffer.py", *_LAYER),
    "mitm.lane.shared": ("mitm/lane/test_shared.py",),
    "mitm.flow.waiting_stream": (
        "mitm/flow/test_waiting_stream.py",
        "mitm/flow/test_upstream_connections.py",
    ),
    "mitm.flow.upstream_connections": ("mitm/flow/test_upstream_connections.py",),
    "mitm.room": ("mitm/test_room.py",),
    "mitm.deadlines": ("mitm/test_deadlines.py", "mitm/test_deadlines_of_bodies.py"),
    "mitm.lane.exchange": _EXCHANGE,
    "mitm.lane.dispatch": _EXCHANGE,
    "mitm.lane.client_head": _EXCHANGE,
    "mitm.lane.granted_request": _EXCHANGE,
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
