import { nobody, type RealmEnvironment } from './environment.ts';

/** Short lives and few attempts; nobody has an account that this repository knows of. */
export const production: RealmEnvironment = {
  accessTokenSeconds: 300,
  sessionIdleSeconds: 1800,
  sessionMaxSeconds: 36_000,
  bruteForce: { failures: 5, waitSeconds: 60, longestWaitSeconds: 3600 },
  signingKeys: { days: 30, publishSeconds: 900 },
  consoleOrigin: 'https://console.example.com',
  teams: ['everyone'],
  personas: [],
  people: nobody,
};
