/* Makes tokens, good ones and others. */
#ifndef ZDM_JWT_H
#define ZDM_JWT_H

#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

#include "check.h"

enum { JWT_ROOM = 8192 };

static inline size_t base64url(const void *data, size_t length, char *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	const uint8_t *bytes = data;
	size_t written = 0;
	uint32_t bits = 0;
	int held = 0;
	for (size_t i = 0; i < length; i++) {
		bits = bits << 8 | bytes[i];
		for (held += 8; held >= 6; held -= 6)
			out[written++] = digits[bits >> (held - 6) & 63];
	}
	if (held > 0)
		out[written++] = digits[bits << (6 - held) & 63];
	out[written] = 0;
	return written;
}

/* "header.claims" */
static inline void jwt_begin(char token[JWT_ROOM], const char *header, size_t header_length, const char *claims,
	size_t claims_length)
{
	size_t length = base64url(header, header_length, token);
	token[length] = '.';
	base64url(claims, claims_length, token + length + 1);
}

static inline void jwt_end(char token[JWT_ROOM], const uint8_t *signature, size_t length)
{
	size_t at = strlen(token);
	token[at] = '.';
	base64url(signature, length, token + at + 1);
}

static inline void sign_hs256(char token[JWT_ROOM], const void *key, size_t length)
{
	uint8_t signature[EVP_MAX_MD_SIZE];
	unsigned size = 0;
	CHECK(HMAC(EVP_sha256(), key, (int)length, (const uint8_t *)token, strlen(token), signature, &size) != NULL);
	jwt_end(token, signature, size);
}

/* r and s, each of half a signature's length. */
static inline void raw_signature(EVP_PKEY *key, const char *text, uint8_t raw[64])
{
	uint8_t der[256];
	size_t length = sizeof der;
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	CHECK(EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, key) == 1);
	CHECK(EVP_DigestSign(context, der, &length, (const uint8_t *)text, strlen(text)) == 1);
	const uint8_t *at = der;
	ECDSA_SIG *signature = d2i_ECDSA_SIG(NULL, &at, (long)length);
	CHECK(signature != NULL);
	CHECK(BN_bn2binpad(ECDSA_SIG_get0_r(signature), raw, 32) == 32);
	CHECK(BN_bn2binpad(ECDSA_SIG_get0_s(signature), raw + 32, 32) == 32);
	ECDSA_SIG_free(signature);
	EVP_MD_CTX_free(context);
}

static inline void sign_es256(char token[JWT_ROOM], EVP_PKEY *key)
{
	uint8_t raw[64];
	raw_signature(key, token, raw);
	jwt_end(token, raw, sizeof raw);
}

static inline size_t public_der(EVP_PKEY *key, uint8_t out[1024])
{
	uint8_t *at = out;
	int length = i2d_PUBKEY(key, &at);
	CHECK(length > 0 && length <= 1024);
	return (size_t)length;
}

#endif
