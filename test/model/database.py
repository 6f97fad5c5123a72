"""Connections of the model tests."""

import psycopg2


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
