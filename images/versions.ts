/**
 * Every version that goes into an image, in one place. The rest is pinned by lock files: npm by package-lock.json, Go by
 * the go.sum of each toolchain family, Python by requirements.txt (with hashes) beside the Containerfile.
 */
export const versions = {
  /** Debian release of the base. Its packages are pinned by the release and verified by apt's signatures. */
  debian: 'bookworm',
  /** PostgreSQL major, as packaged by that release. */
  postgresql: '15',
  /** Python of that release, which the staged wheels are made for. */
  python: '3.11',
  /** https://central.sonatype.com/artifact/org.keycloak/keycloak-quarkus-dist */
  keycloak: '26.7.4',
  /** SHA-256 of keycloak-quarkus-dist-<version>.zip. */
  keycloakSha256: 'a286e98b4296d4e75ee88d8527c7cd463b307caa022f088c9f22cffccc741fa1',
  /** https://central.sonatype.com/artifact/io.apicurio/apicurio-registry-app */
  apicurio: '2.6.13.Final',
  /** SHA-256 of apicurio-registry-app-<version>-all.tar.gz. */
  apicurioSha256: '3cda1b34aa020fb4ac4dd6a66018d757e81e437f97e20a1f92d366b70091c6ba',
} as const;

/** User and group that every process in every image runs as. */
export const user = 10001;
