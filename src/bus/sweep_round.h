/*
 * sweep_round.h
 *		Where a sweep has seen work.
 */
#ifndef MP_BUS_SWEEP_ROUND_H
#define MP_BUS_SWEEP_ROUND_H

/* A sweep begins: what an earlier one of this session has seen is of no interest. */
extern void mp_sweep_forget_rounds(void);

#endif							/* MP_BUS_SWEEP_ROUND_H */
