export { Identity, type IdentityProps, identityLogoutUrl } from './identity.ts';
