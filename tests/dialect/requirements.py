"""What of SQLAlchemy's compliance suite is for PostgreSQL, and why the rest is not.

SQLAlchemy's own class leaves closed what not every database has. All that it leaves closed is
named here: test_sqlalchemy_suite.py sees to that, and that docs/frameworks/sqlalchemy.md has the
same reasons.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements

# Feature: why its tests are skipped.
SKIPPED = {
    "async_dialect": "only of the asynchronous engine (there it is run)",
    "computed_columns_virtual": "PostgreSQL has them from 18 on (there it is run)",
    "dbapi_lastrowid": "PostgreSQL numbers no rows: SQLAlchemy uses RETURNING",
    "emulated_lastrowid": "PostgreSQL numbers no rows: SQLAlchemy uses RETURNING",
    "emulated_lastrowid_even_with_sequences": "PostgreSQL numbers no rows",
    "fetch_percent": "PostgreSQL has no FETCH FIRST ... PERCENT",
    "foreign_keys_reflect_as_index": "PostgreSQL makes no index of a foreign key",
    "json_deserializer_binary": "a json_deserializer gets text, not bytes",
    "legacy_unconditional_json_extract": "a function that only other databases have",
    "materialized_views_reflect_pk": "PostgreSQL's materialized views have no primary key",
    "nvarchar_types": "PostgreSQL has no NVARCHAR: every text is Unicode",
    "order_by_label_with_expression": "PostgreSQL takes no label within an expression of ORDER BY",
    "reflect_indexes_with_ascdesc_as_expression": "PostgreSQL's are columns with an order",
    "repeated_column_foreign_keys": "PostgreSQL refuses a foreign key that names a column twice",
    "repeated_remote_col_foreign_keys": "PostgreSQL refuses it here, too",
    "unique_index_reflect_as_unique_constraints": "a unique index of PostgreSQL is no constraint",
}

RUN = """
    aggregate_order_by array_type autocommit boolean_col_expressions check_constraint_reflection
    column_collation_reflection comment_reflection comment_reflection_full_unicode computed_columns
    computed_columns_default_persisted computed_columns_reflect_persisted computed_columns_stored
    constraint_comment_reflection create_or_replace_view create_table_as create_temp_table_as
    cross_schema_fk_reflection ctes ctes_on_dml ctes_with_update_delete ctes_with_values
    date_historic datetime_historic datetime_interval datetime_literals datetime_timezone
    datetime_timezone_historic default_schema_name_switch deferrable_fks delete_from except_
    expression_server_defaults fetch_expression fetch_first fetch_no_order_by
    fetch_offset_with_options fetch_ties fk_constraint_option_reflection_ondelete_noaction
    fk_constraint_option_reflection_ondelete_restrict
    fk_constraint_option_reflection_onupdate_restrict float_or_double_precision_behaves_generically
    foreign_key_constraint_name_reflection foreign_key_constraint_option_reflection_ondelete
    foreign_key_constraint_option_reflection_onupdate has_temp_table identity_columns
    identity_columns_standard implicit_default_schema index_ddl_if_exists
    index_reflects_included_columns indexes_check_column_order indexes_with_expressions
    infinity_floats inline_check_constraint_reflection intersect isolation_level json_type
    materialized_views mod_operator_as_percent_sign non_updating_cascade nullsordering
    percent_schema_names precision_numerics_enotation_small
    precision_numerics_many_significant_digits precision_numerics_retains_significant_digits
    reflect_indexes_with_expressions reflect_table_options reflect_tables_no_columns
    reflects_pk_names regexp_match regexp_replace savepoints schema_create_delete schemas
    server_defaults skip_autocommit_rollback supports_bitwise_and supports_bitwise_not
    supports_bitwise_or supports_bitwise_shift supports_bitwise_xor supports_distinct_on
    table_ddl_if_exists table_value_constructor temp_table_comment_reflection temp_table_names
    temporary_views time_timezone timestamp_microseconds tuple_in two_phase_transactions
    unicode_ddl unique_constraints_reflect_as_index update_from uuid_data_type views
    window_functions window_range window_range_non_numeric window_range_numeric
""".split()


def _is_async(config: Any) -> bool:
    return bool(config.db.dialect.is_async)


def _has_virtual_columns(config: Any) -> bool:
    return bool(getattr(config.db.dialect, "supports_virtual_generated_columns", False))


_SOMETIMES = {"async_dialect": _is_async, "computed_columns_virtual": _has_virtual_columns}


class Requirements(SuiteRequirements):
    """For SQLAlchemy's plugin of pytest: setup.cfg names it."""

    def get_isolation_levels(self, config: Any) -> dict[str, Any]:
        levels = config.db.dialect.get_isolation_level_values(None)
        return {"default": "READ COMMITTED", "supported": list(levels)}

    def get_order_by_collation(self, config: Any) -> str:
        return "POSIX"


def _rule(name: str) -> Any:
    if name in RUN:
        return exclusions.open()
    reason = f"{name}: {SKIPPED[name]}"
    if name in _SOMETIMES:
        return exclusions.only_if(_SOMETIMES[name], reason)
    return exclusions.closed(reason)


for _name in (*RUN, *SKIPPED):
    setattr(Requirements, _name, property(lambda self, name=_name: _rule(name)))
