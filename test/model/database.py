"""What the model tests share: connections, and how a model is run."""

import os

import psycopg2
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test


class Database:
    """One connection in autocommit.  All share a clock, which never goes back."""

    offset = 0      # seconds

    def __init__(self):
        self.connection = psycopg2.connect("")
        self.connection.autocommit = True
        self.cursor = self.connection.cursor()
        self.shifted = 0

    def run(self, statement, *arguments):
        if self.shifted != Database.offset:
            self.shifted = Database.offset
            self.cursor.execute("SET meal_planner.clock_offset = %s", (self.shifted,))
        self.cursor.execute(statement, arguments)

    def rows(self, query, *arguments):
        self.run(query, *arguments)
        return self.cursor.fetchall()

    def value(self, query, *arguments):
        return self.rows(query, *arguments)[0][0]

    @staticmethod
    def advance(seconds):
        Database.offset += seconds


def run_model(machine, examples, steps=50):
    """The same sequences each time; MP_MODEL_EXAMPLES sets how many."""
    run_state_machine_as_test(machine, settings=settings(
        max_examples=int(os.environ.get("MP_MODEL_EXAMPLES", examples)), stateful_step_count=steps,
        deadline=None, derandomize=True, report_multiple_bugs=False, database=None, suppress_health_check=list(HealthCheck)))
