/*
 * The envelope of an event: its limits, and its time.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "core/envelope.h"
#include "core/utf8.h"

static MpEnvelopeText
text(const char *value)
{
	return (MpEnvelopeText) {value, strlen(value)};
}

static MpEnvelope
sample(void)
{
	return (MpEnvelope) {
		.detail_type = text("RecipeCreated"),
		.source = text("meal-planner"),
		.account = text("local"),
		.region = text("us-east-1"),
		.detail_is_object = true,
		.detail_bytes = 100
	};
}

static void
accept(const MpEnvelope *envelope)
{
	MpEnvelopeError error = {.field = "none",.message = ""};

	if (!mp_envelope_check(envelope, &error))
		fail_msg("%s: %s", error.field, error.message);
}

static void
refuse(const MpEnvelope *envelope, const char *field, const char *message)
{
	MpEnvelopeError error = {.field = "none",.message = "accepted"};

	if (mp_envelope_check(envelope, &error) || strcmp(error.field, field) != 0 ||
		strcmp(error.message, message) != 0)
		fail_msg("%s: %s, instead of %s: %s", error.field, error.message, field, message);
}

static void
test_accepts(void **state)
{
	MpEnvelope	envelope = sample();

	(void) state;
	accept(&envelope);

	/* all that may be absent is */
	envelope = (MpEnvelope) {.detail_type = text("x"),.detail_is_object = true};
	accept(&envelope);

	envelope.detail_type.text = NULL;
	refuse(&envelope, "detail_type", "detail_type is required");
}

/*
 * Each text is tried at its limit and one beyond, in characters of one to four
 * bytes, and empty.
 */
static void
test_lengths(void **state)
{
	static const struct
	{
		const char *field;
		size_t		offset;
		size_t		limit;
	}			fields[] = {
		{"detail_type", offsetof(MpEnvelope, detail_type), 128},
		{"source", offsetof(MpEnvelope, source), 256},
		{"account", offsetof(MpEnvelope, account), 128},
		{"region", offsetof(MpEnvelope, region), 64},
		{"stream", offsetof(MpEnvelope, stream), 255},
		{"idempotency_key", offsetof(MpEnvelope, idempotency_key), 255},
	};
	static const char *const characters[] = {"a", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x8D\x9E"};

	(void) state;
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
	{
		MpEnvelope	envelope = sample();
		MpEnvelopeText *value = (MpEnvelopeText *) ((char *) &envelope + fields[i].offset);
		char		message[128];

		snprintf(message, sizeof(message), "%s must be between 1 and %zu characters",
				 fields[i].field, fields[i].limit);
		*value = text("");
		refuse(&envelope, fields[i].field, message);

		for (size_t j = 0; j < 4; j++)
		{
			char		buffer[2048] = "";

			for (size_t k = 0; k < fields[i].limit; k++)
				strcat(buffer, characters[j]);
			*value = text(buffer);
			accept(&envelope);
			strcat(buffer, "a");
			*value = text(buffer);
			refuse(&envelope, fields[i].field, message);
		}
	}
}

static void
test_control_characters(void **state)
{
	static const char *const bad[] = {"\001", "a\nb", "a\t", "\x1F", "a\x7F"};
	MpEnvelope	envelope;

	(void) state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
#define TRY(member) \
		envelope = sample(); \
		envelope.member = text(bad[i]); \
		refuse(&envelope, #member, #member " must not contain control characters")

		TRY(detail_type);
		TRY(source);
		TRY(account);
		TRY(region);
		TRY(stream);
		/* a key is any text */
		envelope = sample();
		envelope.idempotency_key = text(bad[i]);
		accept(&envelope);
	}
	envelope = sample();
	envelope.stream = (MpEnvelopeText) {"a\0b", 3};
	refuse(&envelope, "stream", "stream must not contain control characters");
	/* beyond ASCII no byte is a control character */
	envelope.stream = text("\xC3\xA9 ~\xC2\x80");
	accept(&envelope);
}

static void
test_resources(void **state)
{
	MpEnvelope	envelope = sample();
	MpEnvelopeText resources[101];
	char		longest[2049 + 1];

	(void) state;
	for (size_t i = 0; i < 101; i++)
		resources[i] = text("arn:meal");
	envelope.resources = resources;
	envelope.resource_count = 100;
	accept(&envelope);
	envelope.resource_count = 101;
	refuse(&envelope, "resources", "resources must not have more than 100 entries");

	envelope.resource_count = 3;
	memset(longest, 'x', sizeof(longest));
	resources[2] = (MpEnvelopeText) {longest, 2048};
	accept(&envelope);
	resources[2].len = 2049;
	refuse(&envelope, "resources", "each of resources must be between 1 and 2048 characters");
	resources[2].len = 0;
	refuse(&envelope, "resources", "each of resources must be between 1 and 2048 characters");
	resources[2].text = NULL;
	refuse(&envelope, "resources", "each of resources must be between 1 and 2048 characters");
}

static void
test_detail(void **state)
{
	static const char too_large[] =
	"detail and envelope together must not be larger than 1048576 bytes";
	MpEnvelope	envelope = sample();
	MpEnvelopeText resources[2];

	(void) state;
	envelope.detail_is_object = false;
	refuse(&envelope, "detail", "detail must be a JSON object");

	/* 14 + source + detail type + detail + resources, nothing else */
	envelope = sample();
	envelope.stream = text("not counted");
	resources[0] = text("12345");
	resources[1] = text("678");
	envelope.resources = resources;
	envelope.resource_count = 2;
	envelope.detail_bytes = 1048576 - 14 - 12 - 13 - 8;
	accept(&envelope);
	envelope.detail_bytes++;
	refuse(&envelope, "detail", too_large);
	envelope.detail_bytes = SIZE_MAX;
	refuse(&envelope, "detail", too_large);
}

static void
test_times(void **state)
{
	static const struct
	{
		const char *text;
		int64_t		expected;
	}			cases[] = {
		{"1970-01-01T00:00:00Z", 0},
		{"1970-01-01t00:00:00z", 0},
		{"1970-01-01 00:00:00Z", 0},
		{"1970-01-01T00:00:00.000001Z", 1},
		{"1970-01-01T00:00:00.5Z", 500000},
		{"1970-01-01T00:00:00.123456789Z", 123456},
		{"1969-12-31T23:59:59.999999Z", -1},
		{"1969-12-31T23:59:59.9999999Z", -1},
		{"1970-01-01T01:00:00+01:00", 0},
		{"1969-12-31T23:30:00-00:30", 0},
		{"1970-01-01T00:00:00-00:00", 0},
		{"1970-01-01T23:59:00+23:59", 0},
		{"2017-12-22T18:43:48Z", INT64_C(1513968228000000)},
		{"2026-11-23T08:47:00+02:00", INT64_C(1795416420000000)},
		{"2000-02-29T12:00:00Z", INT64_C(951825600000000)},
		{"2024-02-29T00:00:00Z", INT64_C(1709164800000000)},
		{"1900-03-01T00:00:00Z", INT64_C(-2203891200000000)},
		{"0000-01-01T00:00:00Z", INT64_C(-62167219200000000)},
		{"0000-02-29T00:00:00Z", INT64_C(-62162121600000000)},
		{"0000-03-01T00:00:00Z", INT64_C(-62162035200000000)},
		{"0001-01-01T00:00:00Z", INT64_C(-62135596800000000)},
		{"9999-12-31T23:59:59.999999Z", INT64_C(253402300799999999)},
		/* leap seconds */
		{"2016-12-31T23:59:60Z", INT64_C(1483228799999999)},
		{"2016-12-31T23:59:60.5Z", INT64_C(1483228799999999)},
		{"2016-12-31T15:59:60-08:00", INT64_C(1483228799999999)},
	};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		int64_t		result = 42;

		if (!mp_rfc3339_parse(cases[i].text, strlen(cases[i].text), &result) ||
			result != cases[i].expected)
			fail_msg("%s: %lld instead of %lld", cases[i].text, (long long) result,
					 (long long) cases[i].expected);
	}
}

static void
test_no_times(void **state)
{
	static const char *const cases[] = {
		"", "2017", "2017-12-22", "2017-12-22T18:43:48", "2017-12-22T18:43Z",
		"2017-12-22_18:43:48Z", "2017-12-22  18:43:48Z", "2017-12-22T18:43:48Zx",
		" 2017-12-22T18:43:48Z", "17-12-22T18:43:48Z", "12017-12-22T18:43:48Z",
		"-017-12-22T18:43:48Z", "2017-1-22T18:43:48Z", "2017/12/22T18:43:48Z",
		"2017-00-22T18:43:48Z", "2017-13-22T18:43:48Z", "2017-12-00T18:43:48Z",
		"2017-12-32T18:43:48Z", "2017-11-31T18:43:48Z", "2017-02-29T18:43:48Z",
		"1900-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2017-12-22T24:00:00Z",
		"2017-12-22T18:60:48Z", "2017-12-22T18:43:61Z", "2017-12-22T18:43:60Z",
		"2016-12-31T23:59:60+01:00", "2017-12-22T18:43:48.Z", "2017-12-22T18:43:48,5Z",
		"2017-12-22T18:43:48.1234567890Z", "2017-12-22T18:43:48+01",
		"2017-12-22T18:43:48+0100", "2017-12-22T18:43:48+24:00",
		"2017-12-22T18:43:48+01:60", "2017-12-22T18:43:48 +01:00",
		"2017-12-22T18:43:48UTC", "2017-12-22T1 :43:48Z", "2017-12-22T+1:43:48Z",
	};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		int64_t		result = 42;

		if (mp_rfc3339_parse(cases[i], strlen(cases[i]), &result))
			fail_msg("%s: %lld", cases[i], (long long) result);
		assert_int_equal(result, 42);
	}
}

/* Every prefix of a time is no time, and is not read beyond its end. */
static void
test_prefixes(void **state)
{
	static const char whole[] = "2016-12-31T23:59:59.123456789+01:30";

	(void) state;
	for (size_t len = 0; len < sizeof(whole) - 1; len++)
	{
		char	   *exact = malloc(len > 0 ? len : 1);
		int64_t		result;

		assert_non_null(exact);
		memcpy(exact, whole, len);
		assert_false(mp_rfc3339_parse(exact, len, &result));
		free(exact);
	}
}

/* Day by day through the whole calendar: each is a day after the one before. */
static void
test_calendar(void **state)
{
	int64_t		expected = INT64_C(-62167219200000000);
	int			days = 0;

	(void) state;
	for (int year = 0; year <= 9999; year++)
	{
		for (int month = 1; month <= 12; month++)
		{
			for (int day = 1; day <= 31; day++)
			{
				char		buffer[64];
				int64_t		result;

				snprintf(buffer, sizeof(buffer), "%04d-%02d-%02dT00:00:00Z", year, month, day);
				if (!mp_rfc3339_parse(buffer, strlen(buffer), &result))
					continue;
				if (result != expected)
					fail_msg("%s", buffer);
				expected += INT64_C(86400000000);
				days++;
			}
		}
	}
	assert_int_equal(days, 3652425);
}

static void
test_utf8(void **state)
{
	(void) state;
	assert_int_equal(mp_utf8_length("", 0), 0);
	assert_int_equal(mp_utf8_length("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x8D\x9E", 10), 4);
	/* a sequence that is cut off or invalid counts byte by byte */
	assert_int_equal(mp_utf8_length("\xF0\x9F\x8D", 3), 3);
	assert_int_equal(mp_utf8_length("\xED\xA0\x80", 3), 3);
	assert_int_equal(mp_utf8_length("\xC0\x80", 2), 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accepts),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_control_characters),
		cmocka_unit_test(test_resources),
		cmocka_unit_test(test_detail),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_no_times),
		cmocka_unit_test(test_prefixes),
		cmocka_unit_test(test_calendar),
		cmocka_unit_test(test_utf8),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
