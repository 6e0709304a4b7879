"""The tree of Understudy's own errors.

UnderstudyError
├── ConfigError          the configuration cannot be used; nothing was started
├── StoreError           the database cannot be opened, read or written
│   ├── StoreLocked      another process owns the database file
│   ├── StoreDamaged     the database file cannot be read, or a part of it cannot
│   └── InputRefused     DuckDB cannot read what a query was given; the message does not show it
├── JournalError         a trace could not be written to the journal (kept in memory meanwhile)
├── TeacherError         the teacher did not give a usable answer to a call of ours
│   ├── TeacherRefused   it refused this one request; others may be answered
│   ├── TeacherMalformed it answered, but not in the structure that was asked for
│   └── BudgetSpent      the token budget of a run does not allow another call
├── RedactionError       something could not be redacted; nothing of it is kept
│   └── RedactionSlow    that takes longer than it may
├── TrainingError        the training subprocess ended without an adapter
├── StudentError         a student server did not start or did not answer as agreed
├── RunError             a run cannot go on with what it has; the message says what is missing
├── CommandRefused       a command by hand cannot be carried out as the task stands
├── ProductError         `understudy serve` did not start or did not answer as agreed
├── BacktestError        a log file cannot be replayed, or a backtest did not come to its end
└── ImportFailed         a file of logged answers cannot be imported; what was taken before stays

A message says what happened, to what, and what to do. The docstring is the default message.
No message holds a secret, a prompt or an answer.
"""

from __future__ import annotations


class UnderstudyError(Exception):
    """Something went wrong inside Understudy."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class ConfigError(UnderstudyError):
    """The configuration cannot be used."""


class StoreError(UnderstudyError):
    """The database cannot be used."""


class StoreLocked(StoreError):
    """Another process owns the database file: stop it, or use another data_dir."""


class StoreDamaged(StoreError):
    """The database file is damaged: run `understudy repair`."""


class InputRefused(StoreError):
    """DuckDB cannot read what a query was given."""


class JournalError(UnderstudyError):
    """The journal cannot be written: check the disk and the rights of its folder."""


class TeacherError(UnderstudyError):
    """The teacher did not give a usable answer."""


class TeacherRefused(TeacherError):
    """The teacher refused this request."""


class TeacherMalformed(TeacherError):
    """The teacher's answer does not have the structure that was asked for."""


class BudgetSpent(TeacherError):
    """The token budget of this run is spent: raise amplify.token_budget or lower amplify.target."""


class RedactionError(UnderstudyError):
    """Something could not be redacted: nothing of it is kept."""


class RedactionSlow(RedactionError):
    """The redaction takes too long."""


class TrainingError(UnderstudyError):
    """The training subprocess ended without an adapter."""


class StudentError(UnderstudyError):
    """The student server did not start or did not answer as agreed."""


class RunError(UnderstudyError):
    """The run cannot go on with what it has."""


class CommandRefused(UnderstudyError):
    """The task does not allow this now."""


class ProductError(UnderstudyError):
    """`understudy serve` did not start or did not answer as agreed."""


class BacktestError(UnderstudyError):
    """The log file cannot be replayed."""


class ImportFailed(UnderstudyError):
    """The file cannot be imported."""
