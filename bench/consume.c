/*
 * consume.c
 *		Consumers of a queue, whichever it is: each client repeats the steps of a
 *		script, and the events that it got and finished are counted.
 *
 *	consume -d CONNINFO -c CLIENTS -T SECONDS [-n EVENTS] SCRIPT
 *
 * It prints "SECOND EVENTS BUSY" for every second and "total EVENTS BUSY ELAPSED"
 * at the end.  BUSY is the time that all clients together spent outside of "put"
 * steps.  With -n it stops after so many events.
 *
 * A line of the script is one statement, with what it is good for before it:
 *
 *	run: SQL			nothing
 *	true: SQL			must answer true
 *	put: SQL			makes events; its time does not count
 *	first: SQL			its first field is $1 from here on; NULL or no row: nothing to do
 *	events: SQL			its rows are events; no row: nothing to do
 *	events first: SQL	both
 *	number: SQL			its last field is a number of events (with "first": if there are any)
 *	events array: SQL	the first fields of all its rows, as an array, are $1 from here on
 *
 * With nothing to do the client rolls back, sleeps a millisecond and starts again.
 */
#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_STEPS	16
#define MAX_CLIENTS	64
#define MAX_SECONDS	3600

typedef struct Step
{
	char	   *sql;
	char		name[16];
	bool		wants_value;	/* the statement has a $1 */
	bool		events;
	bool		number;
	bool		first;
	bool		array;
	bool		put;
	bool		must_be_true;
} Step;

typedef struct Client
{
	pthread_t	thread;
	PGconn	   *connection;
	char	   *value;			/* $1 */
	size_t		room;
} Client;

static Step steps[MAX_STEPS];
static int	step_count;
static Client clients[MAX_CLIENTS];
static double limit_seconds = 10;
static long limit_events;

static double started;
static atomic_bool stop;
static atomic_long total;
static double finished;			/* when the limit of events was reached */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long events_in[MAX_SECONDS];
static double busy_in[MAX_SECONDS];

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void
die(const char *what, const char *why)
{
	fprintf(stderr, "consume: %s: %s\n", what, why);
	exit(1);
}

static void
add_step(char *line)
{
	Step	   *step = &steps[step_count];
	char	   *colon = strstr(line, ": ");
	char	   *word;

	if (colon == NULL || step_count == MAX_STEPS)
		die("script", line);
	*colon = '\0';
	step->sql = strdup(colon + 2);
	step->wants_value = strstr(step->sql, "$1") != NULL;
	snprintf(step->name, sizeof(step->name), "step%d", step_count);
	for (word = strtok(line, " "); word != NULL; word = strtok(NULL, " "))
	{
		if (strcmp(word, "events") == 0)
			step->events = true;
		else if (strcmp(word, "number") == 0)
			step->number = true;
		else if (strcmp(word, "first") == 0)
			step->first = true;
		else if (strcmp(word, "array") == 0)
			step->array = true;
		else if (strcmp(word, "put") == 0)
			step->put = true;
		else if (strcmp(word, "true") == 0)
			step->must_be_true = true;
		else if (strcmp(word, "run") != 0)
			die("script", word);
	}
	step_count++;
}

static void
read_script(const char *path)
{
	FILE	   *file = fopen(path, "r");
	char	   *line = NULL;
	size_t		size = 0;
	ssize_t		length;

	if (file == NULL)
		die("cannot read", path);
	while ((length = getline(&line, &size, file)) > 0)
	{
		if (line[length - 1] == '\n')
			line[length - 1] = '\0';
		if (line[0] != '\0' && line[0] != '#')
			add_step(line);
	}
	free(line);
	fclose(file);
}

/* The value of $1 becomes the first field, or all first fields as an array. */
static void
keep_value(Client *client, PGresult *result, bool array)
{
	int			rows = array ? PQntuples(result) : 1;
	size_t		needed = 3;
	char	   *at;

	for (int row = 0; row < rows; row++)
		needed += PQgetlength(result, row, 0) + 1;
	if (needed > client->room)
	{
		client->room = needed * 2;
		client->value = realloc(client->value, client->room);
		if (client->value == NULL)
			die("memory", "none left");
	}
	at = client->value;
	for (int row = 0; row < rows; row++)
	{
		if (array)
			*at++ = (row == 0) ? '{' : ',';
		memcpy(at, PQgetvalue(result, row, 0), PQgetlength(result, row, 0));
		at += PQgetlength(result, row, 0);
	}
	if (array)
		*at++ = '}';
	*at = '\0';
}

/* Runs one step; false: there is nothing to do. */
static bool
run_step(Client *client, const Step *step, long *events)
{
	const char *values[1] = {client->value};
	PGresult   *result = PQexecPrepared(client->connection, step->name, step->wants_value ? 1 : 0,
										values, NULL, NULL, 0);
	ExecStatusType status = PQresultStatus(result);
	bool		something = true;

	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
		die(step->sql, PQerrorMessage(client->connection));
	if (step->events || step->first)
		something = PQntuples(result) > 0 && !PQgetisnull(result, 0, 0);
	if (something && (step->first || step->array))
		keep_value(client, result, step->array);
	if (step->events)
		*events += PQntuples(result);
	if (step->number && something)
		*events += atol(PQgetvalue(result, 0, PQnfields(result) - 1));
	if (step->must_be_true &&
		(PQntuples(result) != 1 || strcmp(PQgetvalue(result, 0, 0), "t") != 0))
		die(step->sql, "is not true");
	PQclear(result);
	return something;
}

static void
count(long events, double busy)
{
	int			second = (int) (now() - started);

	pthread_mutex_lock(&lock);
	if (second >= 0 && second < MAX_SECONDS)
	{
		events_in[second] += events;
		busy_in[second] += busy;
	}
	if (atomic_fetch_add(&total, events) + events >= limit_events && limit_events > 0 && !stop)
	{
		stop = true;
		finished = now();
	}
	pthread_mutex_unlock(&lock);
}

static void *
consume(void *argument)
{
	Client	   *client = argument;

	while (!stop && now() - started < limit_seconds)
	{
		long		events = 0;
		double		busy = 0;
		bool		something = true;

		for (int i = 0; i < step_count && something; i++)
		{
			double		from = now();

			something = run_step(client, &steps[i], &events);
			if (!steps[i].put)
				busy += now() - from;
		}
		if (!something)
		{
			events = 0;
			if (PQtransactionStatus(client->connection) != PQTRANS_IDLE)
				PQclear(PQexec(client->connection, "ROLLBACK"));
			usleep(1000);
			busy += 0.001;
		}
		count(events, busy);
	}
	return NULL;
}

static void
connect_client(Client *client, const char *conninfo)
{
	client->connection = PQconnectdb(conninfo);
	if (PQstatus(client->connection) != CONNECTION_OK)
		die("cannot connect", PQerrorMessage(client->connection));
	for (int i = 0; i < step_count; i++)
	{
		PGresult   *result = PQprepare(client->connection, steps[i].name, steps[i].sql, 0, NULL);

		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			die(steps[i].sql, PQerrorMessage(client->connection));
		PQclear(result);
	}
}

int
main(int argc, char **argv)
{
	const char *conninfo = "";
	int			client_count = 1;
	double		busy = 0;
	int			option;

	while ((option = getopt(argc, argv, "d:c:T:n:")) != -1)
	{
		switch (option)
		{
			case 'd':
				conninfo = optarg;
				break;
			case 'c':
				client_count = atoi(optarg);
				break;
			case 'T':
				limit_seconds = atof(optarg);
				break;
			case 'n':
				limit_events = atol(optarg);
				break;
			default:
				return 2;
		}
	}
	if (optind != argc - 1 || client_count < 1 || client_count > MAX_CLIENTS || limit_seconds > MAX_SECONDS - 60)
		die("usage", "consume -d CONNINFO -c CLIENTS -T SECONDS [-n EVENTS] SCRIPT");
	read_script(argv[optind]);
	for (int i = 0; i < client_count; i++)
		connect_client(&clients[i], conninfo);

	started = now();
	for (int i = 0; i < client_count; i++)
		if (pthread_create(&clients[i].thread, NULL, consume, &clients[i]) != 0)
			die("pthread_create", "failed");
	for (int i = 0; i < client_count; i++)
	{
		pthread_join(clients[i].thread, NULL);
		PQfinish(clients[i].connection);
		free(clients[i].value);
	}
	if (finished == 0)
		finished = now();

	for (int second = 0; second < MAX_SECONDS; second++)
	{
		busy += busy_in[second];
		if (second < finished - started)
			printf("%d %ld %.6f\n", second, events_in[second], busy_in[second]);
	}
	printf("total %ld %.6f %.6f\n", (long) total, busy, finished - started);
	return 0;
}
