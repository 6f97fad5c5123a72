/*
 * saga_graph.c
 *		A saga as a Mermaid flowchart.
 *
 * Boxes are functions, rounded boxes services, the hexagon is the pivot.  The
 * text is made twice: once to know its size.
 */
#include <stdio.h>
#include <string.h>

#include "core/saga.h"

typedef struct Writer
{
	char	   *text;			/* NULL: only counts */
	size_t		used;
} Writer;

static void
put(Writer *w, const char *text)
{
	size_t		len = strlen(text);

	if (w->text != NULL)
		memcpy(w->text + w->used, text, len);
	w->used += len;
}

static void
put_number(Writer *w, int number)
{
	char		text[16];

	snprintf(text, sizeof(text), "%d", number);
	put(w, text);
}

/* Within the quotes of a label; what would end it or be markup goes as an entity. */
static void
put_label(Writer *w, const char *text)
{
	for (; *text != '\0'; text++)
	{
		char		plain[2] = {*text, '\0'};

		switch (*text)
		{
			case '"':
				put(w, "#quot;");
				break;
			case '#':
				put(w, "#35;");
				break;
			case '&':
				put(w, "#amp;");
				break;
			case '<':
				put(w, "#lt;");
				break;
			case '>':
				put(w, "#gt;");
				break;
			case '`':
				put(w, "#96;");
				break;
			default:
				put(w, plain);
		}
	}
}

static void
put_node(Writer *w, int number)
{
	put(w, "s");
	put_number(w, number);
}

/* "undo_started, attempt 2" */
static void
put_state(Writer *w, const MpSagaStepRecord *record)
{
	put(w, "<br/>");
	put(w, mp_saga_step_state_name(record->state));
	if (record->attempt > 0)
	{
		put(w, ", attempt ");
		put_number(w, record->attempt);
	}
	if (record->unknown)
		put(w, ", outcome unknown");
}

static void
put_step(Writer *w, const MpSagaDefinition *definition, const MpSaga *saga, int i)
{
	const MpSagaStep *step = &definition->steps[i];
	const char *open = step->kind == MP_SAGA_PIVOT ? "{{\"" : step->service != NULL ? "([\"" : "[\"";
	const char *close = step->kind == MP_SAGA_PIVOT ? "\"}}" : step->service != NULL ? "\"])" : "\"]";
	const char *undo = step->undo != NULL ? step->undo : step->undo_service;

	put(w, "    ");
	put_node(w, i);
	put(w, open);
	put_label(w, step->name);
	put(w, "<br/>");
	put(w, mp_saga_kind_name(step->kind));
	put(w, ": ");
	put_label(w, step->run != NULL ? step->run : step->service);
	if (undo != NULL)
	{
		put(w, "<br/>undo: ");
		put_label(w, undo);
	}
	if (saga != NULL)
		put_state(w, &saga->step[i]);
	put(w, close);
	if (saga != NULL)
	{
		put(w, ":::");
		put(w, mp_saga_step_state_name(saga->step[i].state));
	}
	put(w, "\n");
}

static void
put_edges(Writer *w, const MpSagaDefinition *definition, int to)
{
	for (int from = 0; from < definition->step_count; from++)
	{
		if ((definition->steps[to].after & MP_SAGA_STEP(from)) == 0)
			continue;
		put(w, "    ");
		put_node(w, from);
		put(w, " --> ");
		put_node(w, to);
		put(w, "\n");
	}
}

static void
put_class(Writer *w, const MpSagaDefinition *definition, const MpSaga *saga, MpSagaStepState state, const char *style)
{
	for (int i = 0; i < definition->step_count; i++)
	{
		if (saga->step[i].state != state)
			continue;
		put(w, "    classDef ");
		put(w, mp_saga_step_state_name(state));
		put(w, " ");
		put(w, style);
		put(w, "\n");
		return;
	}
}

static void
put_graph(Writer *w, const MpSagaDefinition *definition, const MpSaga *saga)
{
	static const char *const styles[MP_SAGA_STEP_STATES] = {
		[MP_SAGA_STEP_PENDING] = "fill:#fff,stroke:#999,color:#666",
		[MP_SAGA_STEP_STARTED] = "fill:#dbeafe,stroke:#1d4ed8,color:#000",
		[MP_SAGA_STEP_WAITING] = "fill:#fef3c7,stroke:#b45309,color:#000",
		[MP_SAGA_STEP_SUCCEEDED] = "fill:#dcfce7,stroke:#15803d,color:#000",
		[MP_SAGA_STEP_FAILED] = "fill:#fee2e2,stroke:#b91c1c,color:#000",
		[MP_SAGA_STEP_PARKED] = "fill:#b91c1c,stroke:#7f1d1d,color:#fff",
		[MP_SAGA_STEP_SKIPPED] = "fill:#f3f4f6,stroke:#6b7280,color:#000,stroke-dasharray:4",
		[MP_SAGA_STEP_UNDO_STARTED] = "fill:#ede9fe,stroke:#6d28d9,color:#000",
		[MP_SAGA_STEP_UNDO_WAITING] = "fill:#fef3c7,stroke:#6d28d9,color:#000",
		[MP_SAGA_STEP_UNDO_PARKED] = "fill:#b91c1c,stroke:#6d28d9,color:#fff",
		[MP_SAGA_STEP_UNDONE] = "fill:#e5e7eb,stroke:#6d28d9,color:#000",
		[MP_SAGA_STEP_UNDO_SKIPPED] = "fill:#e5e7eb,stroke:#6d28d9,color:#000,stroke-dasharray:4"
	};

	if (saga != NULL)
	{
		put(w, "---\ntitle: ");
		put(w, mp_saga_state_name(saga->state));
		put(w, "\n---\n");
	}
	put(w, "flowchart TD\n");
	for (int i = 0; i < definition->step_count; i++)
		put_step(w, definition, saga, i);
	for (int i = 0; i < definition->step_count; i++)
		put_edges(w, definition, i);
	for (int state = 0; saga != NULL && state < MP_SAGA_STEP_STATES; state++)
		put_class(w, definition, saga, (MpSagaStepState) state, styles[state]);
}

const char *
mp_saga_graph(const MpSagaDefinition *definition, const MpSaga *saga, MpArena *arena)
{
	Writer		w = {0};

	put_graph(&w, definition, saga);
	w.text = arena->alloc(arena->context, w.used + 1);
	w.used = 0;
	put_graph(&w, definition, saga);
	w.text[w.used] = '\0';
	return w.text;
}
