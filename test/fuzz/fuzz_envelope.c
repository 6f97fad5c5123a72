/*
 * Fuzzes what is read from outside before it becomes an event: the envelope's
 * texts, its time, and the detail as a JSON text.
 *
 * The input is lines: detail type, source, time, detail (which is all the rest).
 */
#include <stdint.h>

#include "core/document.h"
#include "core/envelope.h"
#include "law.h"

/* What is missing is empty. */
static MpEnvelopeText
next_text(const char **at, size_t *left)
{
	Part		part = next_part(at, left);

	return (MpEnvelopeText) {part.text, part.len};
}

/* A time in its one canonical form leads to the same instant. */
static void
check_time(MpEnvelopeText text)
{
	int64_t		instant;
	int64_t		again;
	char		printed[64];
	int64_t		days;
	int64_t		rest;
	int64_t		era;
	int64_t		day_of_era;
	int64_t		year_of_era;
	int64_t		day_of_year;
	int64_t		month;
	int64_t		year;

	if (!mp_rfc3339_parse(text.text, text.len, &instant))
		return;
	LAW(text.len >= 20);

	/* civil date from days, by eras of 400 years that begin in March */
	days = instant / INT64_C(86400000000);
	rest = instant % INT64_C(86400000000);
	if (rest < 0)
	{
		rest += INT64_C(86400000000);
		days--;
	}
	days += 719468;
	era = (days >= 0 ? days : days - 146096) / 146097;
	day_of_era = days - era * 146097;
	year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	month = (5 * day_of_year + 2) / 153;
	year = year_of_era + era * 400 + (month >= 10);
	if (year < 0 || year > 9999)
		return;					/* an offset led out of the calendar */
	snprintf(printed, sizeof(printed), "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ",
			 (int) year, (int) (month < 10 ? month + 3 : month - 9),
			 (int) (day_of_year - (153 * month + 2) / 5 + 1),
			 (int) (rest / INT64_C(3600000000)), (int) (rest / 60000000 % 60),
			 (int) (rest / 1000000 % 60), (int) (rest % 1000000));
	LAW(mp_rfc3339_parse(printed, strlen(printed), &again));
	LAW(again == instant);
}

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *at = size > 0 ? (const char *) data : "";
	size_t		left = size;
	MpEnvelopeText time;
	MpEnvelope	envelope = {0};
	MpEnvelopeError error = {0};
	MpDocumentError document_error;

	envelope.detail_type = next_text(&at, &left);
	envelope.source = next_text(&at, &left);
	time = next_text(&at, &left);
	check_time(time);

	memset(&document_error, 0, sizeof(document_error));
	envelope.detail_bytes = left;
	envelope.detail_is_object = mp_document_check(at, envelope.detail_bytes, 4096, 16,
												  &document_error);
	if (!envelope.detail_is_object)
	{
		LAW(memchr(document_error.message, '\0', sizeof(document_error.message)) != NULL);
		LAW(document_error.message[0] != '\0');
		LAW(document_error.line >= 0 && document_error.column >= 0);
		LAW(document_error.line <= (int) size + 1 && document_error.column <= (int) size + 1);
	}

	envelope.resources = &time;
	envelope.resource_count = 1;
	if (mp_envelope_check(&envelope, &error))
	{
		LAW(envelope.detail_type.len > 0 && envelope.detail_type.len <= 512);
		LAW(envelope.detail_is_object);
	}
	else
		LAW(error.field != NULL && error.message[0] != '\0');
	return 0;
}
