import { randomBytes } from 'node:crypto';
import { byRequest, byToken } from './attack.ts';

const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const letters = (count: number): string => [...randomBytes(count)].map((byte) => alphabet[byte % 62]).join('');
/** A key of the right form that nobody was given. */
const invented = (): string => `soma_${letters(22)}_${letters(43)}`;

/** API keys that were never given out. */
export const apiKeys = [
  ...byToken(401, 'token-invalid', {
    'an invented key': invented,
    'a key without its secret': () => `soma_${letters(22)}`,
    'a key with an empty secret': () => `soma_${letters(22)}_`,
    'a key with a secret too short': () => `soma_${letters(22)}_${letters(42)}`,
    'a key with a secret too long': () => `soma_${letters(22)}_${letters(200)}`,
    'a key of many parts': () => `${invented()}_${letters(43)}`,
    'a key in another dialect': () => invented().replace('soma_', 'SOMA_'),
    'a key as the prefix of a token': ({ good }) => `soma_${good}`,
    'a key after a token': ({ good }) => `${good}.${invented()}`,
  }),
  ...byRequest(401, 'token-missing', {
    'a key with SQL': () => ({ headers: [['Authorization', `Bearer soma_' or '1'='1_${letters(43)}`]] }),
    'a key in its own header': () => ({
      headers: [
        ['X-API-Key', invented()],
        ['Api-Key', invented()],
      ],
    }),
    'a key in the query': () => ({ target: `/v1/sessions?api_key=${invented()}` }),
    'a key as a password': () => ({
      headers: [['Authorization', `Basic ${Buffer.from(`${invented()}:`).toString('base64')}`]],
    }),
  }),
];
