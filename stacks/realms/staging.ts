import { nobody, type RealmEnvironment } from './environment.ts';

/** As production, so that what is tried here is what will be there. */
export const staging: RealmEnvironment = {
  accessTokenSeconds: 300,
  sessionIdleSeconds: 1800,
  sessionMaxSeconds: 36_000,
  bruteForce: { failures: 5, waitSeconds: 60, longestWaitSeconds: 3600 },
  signingKeys: { days: 30, publishSeconds: 900 },
  consoleOrigin: 'https://console.staging.example.com',
  teams: ['everyone'],
  personas: [],
  people: nobody,
};
