export { Keycloak, type KeycloakProps, type RealmDocument } from './keycloak.ts';
