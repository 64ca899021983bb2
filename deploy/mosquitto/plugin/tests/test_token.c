#include "given.h"
#include "jwt.h"
#include "token.h"

enum { NOW = 1700000000 };

static const char SECRET[] = "0123456789abcdef0123456789abcdef", HS[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}",
		  ES[] = "{\"alg\":\"ES256\",\"typ\":\"JWT\"}";
static struct devices devices;
static EVP_PKEY *pair, *other_pair, *koblitz_pair;
static char token[JWT_ROOM];

/* Key 0: HS256; 1: ES256; 3: ES256 that is no key; 4: ES256 on another curve. */
static struct device *the_device(void)
{
	uint8_t der[1024], foreign[1024];
	struct writer writer = {0};
	struct entry entry;
	pair = EVP_EC_gen("P-256");
	other_pair = EVP_EC_gen("P-256");
	koblitz_pair = EVP_EC_gen("secp256k1");
	struct given given = {.state = ACTIVE, .id = "dev-1", .keys_count = 4,
		.keys = {{0, KEY_HS256, SECRET, 32}, {1, KEY_ES256, der, public_der(pair, der)}, {3, KEY_ES256, "not a key", 9},
			{4, KEY_ES256, foreign, public_der(koblitz_pair, foreign)}}};
	give_entry(&writer, &given);
	struct reader reader = reader_over(writer.data, writer.length);
	CHECK(read_entry(&reader, &entry));
	struct device *device = device_apply(&devices, &entry);
	writer_free(&writer);
	return device;
}

static struct device *device;

static enum token_verdict check(void)
{
	uint32_t key = 12345;
	/* A copy of its own length, so that a read beyond it is seen. */
	char *copy = strdup(token);
	enum token_verdict verdict = token_check(copy, device, NOW, &key);
	free(copy);
	CHECK((verdict == TOKEN_GOOD) == (key != 12345));
	return verdict;
}

static enum token_verdict check_hs(const char *header, const char *claims)
{
	jwt_begin(token, header, strlen(header), claims, strlen(claims));
	sign_hs256(token, SECRET, 32);
	return check();
}

static enum token_verdict check_es(const char *header, const char *claims, EVP_PKEY *key)
{
	jwt_begin(token, header, strlen(header), claims, strlen(claims));
	sign_es256(token, key);
	return check();
}

static void a_token_signed_by_its_key_is_good(void)
{
	CHECK(check_hs(HS, "{\"sub\":\"dev-1\",\"key\":0,\"exp\":1700003600}") == TOKEN_GOOD);
	CHECK(check_hs(HS, "{\"sub\":\"dev-1\",\"exp\":1700003600}") == TOKEN_GOOD); /* key 0 where none is named */
	CHECK(check_hs(HS, "{\"sub\":\"dev-1\",\"user\":\"dev-1\",\"key\":0,\"exp\":2516239022}") == TOKEN_GOOD);
	CHECK(check_hs("{\"alg\":\"HS256\"}", "{\"exp\":1.7000036e9,\"sub\":\"dev-1\",\"more\":[{}]}") == TOKEN_GOOD);
	CHECK(check_es(ES, "{\"sub\":\"dev-1\",\"key\":1,\"exp\":1700003600}", pair) == TOKEN_GOOD);
}

static void the_type_of_the_stored_key_picks_the_algorithm(void)
{
	static const char *const headers[] = {"{\"alg\":\"none\"}", "{\"alg\":\"None\"}", "{\"alg\":\"ES256\"}",
		"{\"alg\":\"HS512\"}", "{\"alg\":\"hs256\"}", "{\"alg\":\"\"}", "{\"alg\":null}", "{\"alg\":256}", "{}",
		"{\"ALG\":\"HS256\"}", "{\"alg\":[\"HS256\"]}"};
	for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
		CHECK(check_hs(headers[i], "{\"sub\":\"dev-1\",\"exp\":1700003600}") == TOKEN_WRONG_ALGORITHM);
	/* The public key, which everybody may know, as a symmetric one. */
	const struct key *public_key = device_key(device, 1);
	static const char claims[] = "{\"sub\":\"dev-1\",\"key\":1,\"exp\":1700003600}";
	for (int i = 0; i < 2; i++) {
		const char *header = i == 0 ? HS : ES;
		jwt_begin(token, header, strlen(header), claims, strlen(claims));
		sign_hs256(token, public_key->bytes, public_key->length);
		CHECK(check() == (i == 0 ? TOKEN_WRONG_ALGORITHM : TOKEN_BAD_SIGNATURE));
	}
}

static void without_a_signature_there_is_no_way_in(void)
{
	jwt_begin(token, "{\"alg\":\"none\"}", 14, "{\"sub\":\"dev-1\",\"exp\":1700003600}", 32);
	CHECK(check() == TOKEN_MALFORMED);
	strcat(token, ".");
	CHECK(check() == TOKEN_WRONG_ALGORITHM);
	jwt_begin(token, HS, strlen(HS), "{\"sub\":\"dev-1\",\"exp\":1700003600}", 32);
	strcat(token, ".");
	CHECK(check() == TOKEN_BAD_SIGNATURE);
}

static void another_key_does_not_sign_for_it(void)
{
	static const char claims[] = "{\"sub\":\"dev-1\",\"exp\":1700003600}";
	jwt_begin(token, HS, strlen(HS), claims, strlen(claims));
	sign_hs256(token, "another secret of the same size", 32);
	CHECK(check() == TOKEN_BAD_SIGNATURE);
	jwt_begin(token, HS, strlen(HS), claims, strlen(claims));
	sign_hs256(token, SECRET, 31);
	CHECK(check() == TOKEN_BAD_SIGNATURE);
	CHECK(check_es(ES, "{\"sub\":\"dev-1\",\"key\":1,\"exp\":1700003600}", other_pair) == TOKEN_BAD_SIGNATURE);
	CHECK(check_es(ES, "{\"sub\":\"dev-1\",\"key\":3,\"exp\":1700003600}", pair) == TOKEN_BAD_SIGNATURE);
	CHECK(check_hs(HS, "{\"sub\":\"dev-1\",\"key\":2,\"exp\":1700003600}") == TOKEN_UNKNOWN_KEY);
}

static void es256_is_on_p256_and_no_other_curve(void)
{
	CHECK(check_es(ES, "{\"sub\":\"dev-1\",\"key\":4,\"exp\":1700003600}", koblitz_pair) == TOKEN_BAD_SIGNATURE);
}

static bool is_good_with(const char *good, size_t at, char other)
{
	strcpy(token, good);
	token[at] = other;
	return other != good[at] && check() == TOKEN_GOOD;
}

static void every_bit_of_a_token_counts(void)
{
	static const char *const claims[] = {
		"{\"sub\":\"dev-1\",\"key\":0,\"exp\":1700003600}", "{\"sub\":\"dev-1\",\"key\":1,\"exp\":1700003600}"};
	char good[JWT_ROOM];
	for (int i = 0; i < 2; i++) {
		CHECK((i == 0 ? check_hs(HS, claims[i]) : check_es(ES, claims[i], pair)) == TOKEN_GOOD);
		strcpy(good, token);
		size_t signature = (size_t)(strrchr(good, '.') - good);
		/* Of the header's and claims' characters a sample, each of the signature's. */
		for (size_t at = 0; good[at] != 0; at += at < signature ? 5 : 1)
			for (const char *other = "A_z-=.!"; *other != 0; other++)
				CHECK(!is_good_with(good, at, *other));
		/* The last one has bits that no byte takes. */
		for (char other = '!'; other <= '~'; other++)
			CHECK(!is_good_with(good, strlen(good) - 1, other));
		for (size_t cut = 0; cut < strlen(good); cut++) {
			strcpy(token, good);
			token[cut] = 0;
			CHECK(check() != TOKEN_GOOD);
		}
		static const char *const tails[] = {"A", "AA", "AAAA", "=", "==", ".", ".A", " ", "\n"};
		for (size_t tail = 0; tail < sizeof tails / sizeof *tails; tail++) {
			snprintf(token, sizeof token, "%.*s%s", JWT_ROOM - 8, good, tails[tail]);
			CHECK(check() != TOKEN_GOOD);
		}
	}
}

static void a_signature_of_zeros_or_beyond_the_curve_is_refused(void)
{
	uint8_t raw[96] = {0};
	for (int i = 0; i < 4; i++) {
		jwt_begin(token, ES, strlen(ES), "{\"sub\":\"dev-1\",\"key\":1,\"exp\":1700003600}", 40);
		memset(raw, i < 2 ? 0 : 0xff, sizeof raw);
		jwt_end(token, raw, i % 2 == 0 ? 64 : 96);
		CHECK(check() == TOKEN_BAD_SIGNATURE);
	}
	/* As OpenSSL writes them: not what a JWT has. */
	jwt_begin(token, ES, strlen(ES), "{\"sub\":\"dev-1\",\"key\":1,\"exp\":1700003600}", 40);
	uint8_t der[256];
	size_t length = sizeof der;
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	CHECK(EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, pair) == 1);
	CHECK(EVP_DigestSign(context, der, &length, (const uint8_t *)token, strlen(token)) == 1);
	EVP_MD_CTX_free(context);
	jwt_end(token, der, length);
	CHECK(check() == TOKEN_BAD_SIGNATURE);
}

static void a_token_is_for_one_device_and_nobody_else(void)
{
	static const char *const claims[] = {"{\"sub\":\"dev-2\",\"exp\":1700003600}", "{\"sub\":\"dev-\",\"exp\":1700003600}",
		"{\"sub\":\"dev-11\",\"exp\":1700003600}", "{\"sub\":\"DEV-1\",\"exp\":1700003600}", "{\"exp\":1700003600}",
		"{\"sub\":1,\"exp\":1700003600}", "{\"sub\":[\"dev-1\"],\"exp\":1700003600}", "{\"SUB\":\"dev-1\",\"exp\":1700003600}",
		"{\"sub\":\"dev-2\",\"sub\":\"dev-1\",\"exp\":1700003600}", "{\"sub\":\"dev-1\",\"user\":\"dev-2\",\"exp\":1700003600}",
		"{\"sub\":\"dev-1\",\"user\":null,\"exp\":1700003600}", "{\"sub\":\"dev-1\",\"user\":1,\"exp\":1700003600}"};
	for (size_t i = 0; i < sizeof claims / sizeof *claims; i++)
		CHECK(check_hs(HS, claims[i]) == TOKEN_WRONG_SUBJECT);
}

static void a_key_is_named_by_a_whole_number(void)
{
	static const char *const keys[] = {"2", "-1", "0.5", "4294967296", "1e300", "-1e300", "1e999", "\"0\"", "null", "true",
		"[0]", "{}", "0.0000001"};
	char claims[128];
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		snprintf(claims, sizeof claims, "{\"sub\":\"dev-1\",\"key\":%s,\"exp\":1700003600}", keys[i]);
		CHECK(check_hs(HS, claims) == TOKEN_UNKNOWN_KEY);
	}
}

static void a_token_ends_five_minutes_after_its_expiry(void)
{
	static const struct {
		const char *expiry;
		enum token_verdict verdict;
	} cases[] = {{"1700000000", TOKEN_GOOD}, {"1699999701", TOKEN_GOOD}, {"1699999700", TOKEN_EXPIRED}, {"0", TOKEN_EXPIRED},
		{"-1", TOKEN_EXPIRED}, {"-1e999", TOKEN_EXPIRED}, {"1e18", TOKEN_GOOD}, {"\"1700003600\"", TOKEN_MALFORMED},
		{"null", TOKEN_MALFORMED}, {"true", TOKEN_MALFORMED}, {"[1700003600]", TOKEN_MALFORMED}};
	char claims[128];
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		snprintf(claims, sizeof claims, "{\"sub\":\"dev-1\",\"exp\":%s}", cases[i].expiry);
		CHECK(check_hs(HS, claims) == cases[i].verdict);
	}
	CHECK(check_hs(HS, "{\"sub\":\"dev-1\"}") == TOKEN_MALFORMED);
}

static void what_is_no_token_is_malformed(void)
{
	static const char *const wrong[] = {"", ".", "..", "...", "a", "a.b", "a.b.c", "a.b.c.d", "eyJ9.eyJ9.eyJ9",
		"\xff\xfe.\x80.\x01", "e30.e30", " e30.e30.e30", "bnVsbA.e30.AA", "W10.e30.AA", "e30.IiI.AA", "e30.MQ.AA"};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		strcpy(token, wrong[i]);
		CHECK(check() == TOKEN_MALFORMED);
	}
	static const char *const claims[] = {"", "null", "[]", "1", "\"x\"", "{", "{\"sub\":\"dev-1\"", "{} {}", "{}x",
		"{'sub':'dev-1'}", "{\"sub\":\"dev-1\",}"};
	for (size_t i = 0; i < sizeof claims / sizeof *claims; i++)
		CHECK(check_hs(HS, claims[i]) == TOKEN_MALFORMED);
	static const char nul[] = "{\"sub\":\"dev-1\",\"exp\":1700003600}\0{}";
	jwt_begin(token, HS, strlen(HS), nul, sizeof nul - 1);
	sign_hs256(token, SECRET, 32);
	CHECK(check() == TOKEN_MALFORMED);
}

static void a_huge_or_deep_token_is_malformed(void)
{
	char claims[TOKEN_LIMIT];
	memset(claims, '[', sizeof claims);
	claims[2500] = 0;
	CHECK(check_hs(HS, claims) == TOKEN_MALFORMED);
	memset(token, 'A', sizeof token - 1);
	token[sizeof token - 1] = 0;
	CHECK(check() == TOKEN_MALFORMED);
	for (int length = 2900; length < 3000; length++) {
		snprintf(claims, sizeof claims, "{\"sub\":\"dev-1\",\"exp\":1700003600,\"pad\":\"%0*d\"}", length, 0);
		enum token_verdict verdict = check_hs(HS, claims);
		CHECK(verdict == (strlen(token) < TOKEN_LIMIT ? TOKEN_GOOD : TOKEN_MALFORMED));
	}
}

int main(void)
{
	device = the_device();
	RUN(a_token_signed_by_its_key_is_good);
	RUN(the_type_of_the_stored_key_picks_the_algorithm);
	RUN(without_a_signature_there_is_no_way_in);
	RUN(another_key_does_not_sign_for_it);
	RUN(es256_is_on_p256_and_no_other_curve);
	RUN(every_bit_of_a_token_counts);
	RUN(a_signature_of_zeros_or_beyond_the_curve_is_refused);
	RUN(a_token_is_for_one_device_and_nobody_else);
	RUN(a_key_is_named_by_a_whole_number);
	RUN(a_token_ends_five_minutes_after_its_expiry);
	RUN(what_is_no_token_is_malformed);
	RUN(a_huge_or_deep_token_is_malformed);
	devices_free(&devices);
	EVP_PKEY_free(pair);
	EVP_PKEY_free(other_pair);
	EVP_PKEY_free(koblitz_pair);
	return check_done("tokens");
}
