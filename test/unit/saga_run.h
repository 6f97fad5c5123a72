/*
 * saga_run.h
 *		Definitions and instances of sagas for the tests, given as text.
 */
#ifndef SAGA_RUN_H
#define SAGA_RUN_H

#include "core/saga.h"
#include "json_tree.h"

/* Of a text with ' for ", so that it can be read; NULL: *error says why. */
extern const MpSagaDefinition *saga_compile(const char *text, TestArena *arena, MpSagaError *error);

/* Of one that is known to be right; ends the program when it is not. */
extern const MpSagaDefinition *saga_must_compile(const char *text, TestArena *arena);

/* The meal plan of the issue, 4 behind 3 and 4 beside 3; each step is tried at most twice. */
#define POLICY		"'retry':{'max_attempts':2},'undo_retry':{'max_attempts':2}"
#define CREATE_PLAN "{'name':'create plan','kind':'compensatable','run':'f(jsonb)','undo':'g(jsonb)'," POLICY "}"
#define NUTRITION	"{'name':'nutrition','kind':'read_only','service':'nutrition','retry':{'max_attempts':2}}"
#define LIST		"{'name':'list','kind':'pivot','run':'h(jsonb)','retry':{'max_attempts':2}}"
#define SEQUENTIAL \
	"{'steps':[" CREATE_PLAN "," NUTRITION "," LIST \
	",{'name':'mail','kind':'retriable','service':'mail','retry':{'max_attempts':2}}]}"
#define PARALLEL \
	"{'steps':[" CREATE_PLAN "," NUTRITION "," LIST \
	",{'name':'mail','kind':'retriable','service':'mail','undo_service':'mail','after':['nutrition']," POLICY "}]}"

/* The pivot is a service's, without an undo: how it ended may be unknown. */
#define UNDECIDABLE \
	"{'steps':[{'name':'reserve','kind':'compensatable','service':'shop','undo_service':'shop'," POLICY "}" \
	",{'name':'pay','kind':'pivot','service':'bank','retry':{'max_attempts':2}}" \
	",{'name':'thank','kind':'retriable','service':'mail','after':['pay'],'retry':{'max_attempts':2}}]}"

/* The same with an undo for a payment that may have been made. */
#define REVOCABLE \
	"{'steps':[{'name':'reserve','kind':'compensatable','run':'f(jsonb)','undo':'g(jsonb)'," POLICY "}" \
	",{'name':'pay','kind':'pivot','service':'bank','undo_service':'bank'," POLICY "}" \
	",{'name':'read','kind':'read_only','service':'shop','after':['reserve'],'retry':{'max_attempts':2}}]}"

/* No pivot: a diamond of services with a step that only reads in one arm. */
#define DIAMOND \
	"{'steps':[{'name':'a','kind':'compensatable','service':'s','undo_service':'s'," POLICY "}" \
	",{'name':'b','kind':'compensatable','run':'f(jsonb)','undo_service':'s','after':['a']," POLICY "}" \
	",{'name':'c','kind':'read_only','service':'s','after':['a'],'retry':{'max_attempts':2}}" \
	",{'name':'d','kind':'compensatable','service':'s','undo':'g(jsonb)','after':['b','c']," POLICY "}]}"

/*
 * What is done to an instance, as text: begin N, undo N, report N OUTCOME,
 * report-undo N OUTCOME (success transient permanent unknown; with the run in
 * flight, or of a number behind it), deadline, cancel, retry, skip N.  Steps
 * count from 0.
 */
extern MpSagaAnswer saga_do(const MpSagaDefinition *definition, MpSaga *saga, const char *what);

/*
 * When nothing fails any more: what is in flight succeeds, or else something
 * begins.  False when neither can be.  *broken: NULL, or what should not be.
 */
extern bool saga_go_on(const MpSagaDefinition *definition, MpSaga *saga, const char **broken);

/*
 * The laws that hold for every instance, whatever happened to it.  NULL, or the
 * one that is broken.
 */
extern const char *saga_broken_law(const MpSagaDefinition *definition, const MpSaga *saga);

/* The laws between an instance and what one call made of it. */
extern const char *saga_broken_step(const MpSagaDefinition *definition, const MpSaga *from, const MpSaga *to);

#endif							/* SAGA_RUN_H */
