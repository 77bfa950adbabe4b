/* consumer.c - a program as a user would write it: the public header, the installed library. */
#include <kiln/kiln.h>
#include <stdio.h>

int main(void) {
    kiln_env *env;
    if (kiln_env_create(&env, NULL) != KILN_OK) {
        return 1;
    }
    kiln_env_destroy(env);
    return puts(kiln_version()) < 0;
}
