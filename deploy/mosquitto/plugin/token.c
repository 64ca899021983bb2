#include "token.h"

#include <cjson/cJSON.h>
#include <openssl/crypto.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/x509.h>
#include <string.h>

enum { RAW_HALF = 32, RAW_SIGNATURE = 2 * RAW_HALF };

static int digit_of(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '-' ? 62 : c == '_' ? 63 : -1;
}

/* base64url without padding (RFC 7515, 2); the length, or -1. `out` takes 3/4 of `length`. */
static int decode(const char *text, size_t length, uint8_t *out)
{
	uint32_t bits = 0;
	int held = 0, written = 0;
	if (length % 4 == 1)
		return -1;
	for (size_t i = 0; i < length; i++) {
		int digit = digit_of(text[i]);
		if (digit < 0)
			return -1;
		bits = (bits << 6 | (uint32_t)digit) & 0xffff;
		held += 6;
		if (held >= 8) {
			held -= 8;
			out[written++] = (uint8_t)(bits >> held);
		}
	}
	return (bits & ((1u << held) - 1)) == 0 ? written : -1;
}

/* A JSON object that fills the part of the token; NULL otherwise. */
static cJSON *object_of(const char *text, size_t length)
{
	char decoded[TOKEN_LIMIT];
	int size = length < sizeof decoded ? decode(text, length, (uint8_t *)decoded) : -1;
	if (size <= 0 || memchr(decoded, 0, (size_t)size) != NULL)
		return NULL;
	decoded[size] = 0;
	const char *end = NULL;
	cJSON *object = cJSON_ParseWithOpts(decoded, &end, true);
	if (object != NULL && !cJSON_IsObject(object)) {
		cJSON_Delete(object);
		return NULL;
	}
	return object;
}

static const char *string_of(const cJSON *object, const char *name)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

static bool signed_hs256(const struct key *key, const char *input, size_t length, const uint8_t *signature, int size)
{
	uint8_t wanted[EVP_MAX_MD_SIZE];
	unsigned wanted_size = 0;
	if (HMAC(EVP_sha256(), key->bytes, key->length, (const uint8_t *)input, length, wanted, &wanted_size) == NULL)
		return false;
	return size == (int)wanted_size && CRYPTO_memcmp(signature, wanted, wanted_size) == 0;
}

/* r and s as they are in a JWT, to the DER form that OpenSSL takes; the length, or 0. */
static int der_signature(const uint8_t *raw, uint8_t **der)
{
	ECDSA_SIG *signature = ECDSA_SIG_new();
	BIGNUM *r = BN_bin2bn(raw, RAW_HALF, NULL), *s = BN_bin2bn(raw + RAW_HALF, RAW_HALF, NULL);
	int length = 0;
	if (signature != NULL && r != NULL && s != NULL && ECDSA_SIG_set0(signature, r, s) == 1) {
		r = s = NULL;
		length = i2d_ECDSA_SIG(signature, der);
	}
	BN_free(r);
	BN_free(s);
	ECDSA_SIG_free(signature);
	return length;
}

static bool is_p256(const EVP_PKEY *key)
{
	char group[32];
	return key != NULL && EVP_PKEY_base_id(key) == EVP_PKEY_EC &&
		EVP_PKEY_get_group_name(key, group, sizeof group, NULL) == 1 && strcmp(group, SN_X9_62_prime256v1) == 0;
}

static bool signed_es256(const struct key *key, const char *input, size_t length, const uint8_t *signature, int size)
{
	if (size != RAW_SIGNATURE)
		return false;
	const uint8_t *at = key->bytes;
	EVP_PKEY *public_key = d2i_PUBKEY(NULL, &at, key->length);
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	uint8_t *der = NULL;
	int der_length = der_signature(signature, &der);
	bool good = is_p256(public_key) && context != NULL && der_length > 0 &&
		EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, public_key) == 1 &&
		EVP_DigestVerify(context, der, (size_t)der_length, (const uint8_t *)input, length) == 1;
	OPENSSL_free(der);
	EVP_MD_CTX_free(context);
	EVP_PKEY_free(public_key);
	return good;
}

struct parts {
	const char *claims, *signature;
	size_t header_length, claims_length, signature_length;
};

static bool split(const char *token, struct parts *parts)
{
	size_t length = strnlen(token, TOKEN_LIMIT);
	const char *first = memchr(token, '.', length);
	if (length >= TOKEN_LIMIT || first == NULL)
		return false;
	const char *second = strchr(first + 1, '.');
	if (second == NULL || strchr(second + 1, '.') != NULL)
		return false;
	parts->header_length = (size_t)(first - token);
	parts->claims = first + 1;
	parts->claims_length = (size_t)(second - first - 1);
	parts->signature = second + 1;
	parts->signature_length = length - (size_t)(second + 1 - token);
	return true;
}

/* Everything but signature and expiry. */
static enum token_verdict check_claims(
	const cJSON *header, const cJSON *claims, const struct device *device, const struct key **key)
{
	const char *subject = string_of(claims, "sub"), *algorithm = string_of(header, "alg");
	const cJSON *user = cJSON_GetObjectItemCaseSensitive(claims, "user");
	const cJSON *number = cJSON_GetObjectItemCaseSensitive(claims, "key");
	if (subject == NULL || strcmp(subject, device->id) != 0)
		return TOKEN_WRONG_SUBJECT;
	if (user != NULL && (cJSON_GetStringValue(user) == NULL || strcmp(cJSON_GetStringValue(user), device->id) != 0))
		return TOKEN_WRONG_SUBJECT;
	double id = number == NULL ? 0 : cJSON_IsNumber(number) ? number->valuedouble : -1;
	if (id < 0 || id > UINT32_MAX || id != (double)(uint32_t)id || (*key = device_key(device, (uint32_t)id)) == NULL)
		return TOKEN_UNKNOWN_KEY;
	const char *wanted = (*key)->type == KEY_HS256 ? "HS256" : "ES256";
	return algorithm != NULL && strcmp(algorithm, wanted) == 0 ? TOKEN_GOOD : TOKEN_WRONG_ALGORITHM;
}

static enum token_verdict check_signature(const struct key *key, const char *token, const struct parts *parts)
{
	uint8_t signature[TOKEN_LIMIT];
	int size = decode(parts->signature, parts->signature_length, signature);
	size_t length = parts->header_length + 1 + parts->claims_length;
	bool good = key->type == KEY_HS256 ? signed_hs256(key, token, length, signature, size)
					   : signed_es256(key, token, length, signature, size);
	return good ? TOKEN_GOOD : TOKEN_BAD_SIGNATURE;
}

static enum token_verdict check_expiry(const cJSON *claims, uint64_t now_s)
{
	const cJSON *expiry = cJSON_GetObjectItemCaseSensitive(claims, "exp");
	if (!cJSON_IsNumber(expiry))
		return TOKEN_MALFORMED;
	return expiry->valuedouble + TOKEN_SKEW_S > (double)now_s ? TOKEN_GOOD : TOKEN_EXPIRED;
}

enum token_verdict token_check(const char *token, const struct device *device, uint64_t now_s, uint32_t *key_id)
{
	struct parts parts;
	if (!split(token, &parts))
		return TOKEN_MALFORMED;
	const struct key *key = NULL;
	cJSON *header = object_of(token, parts.header_length), *claims = object_of(parts.claims, parts.claims_length);
	enum token_verdict verdict =
		header == NULL || claims == NULL ? TOKEN_MALFORMED : check_claims(header, claims, device, &key);
	if (verdict == TOKEN_GOOD)
		verdict = check_signature(key, token, &parts);
	if (verdict == TOKEN_GOOD)
		verdict = check_expiry(claims, now_s);
	if (verdict == TOKEN_GOOD)
		*key_id = key->id;
	cJSON_Delete(header);
	cJSON_Delete(claims);
	return verdict;
}
